// Where an image lies in a viewer. A place is `{x, y, scale}`: the point of the image, in its
// pixels, that is in the middle of the canvas, and how many canvas pixels one of its pixels makes.

const MOST = 32; // canvas pixels for one of the image

/** The whole image in the middle. */
export function fitted({ rows, columns }, { width, height }) {
  return { x: columns / 2, y: rows / 2, scale: Math.min(width / columns, height / rows) };
}

/** Where the image's top left corner is drawn, in whole canvas pixels so that it stays sharp. */
export function originOf({ x, y, scale }, { width, height }) {
  return [Math.round(width / 2 - x * scale), Math.round(height / 2 - y * scale)];
}

/** The point of the image, in its pixels, that is drawn at `at`. */
export function pointAt(place, canvas, at) {
  const origin = originOf(place, canvas);
  return [(at[0] - origin[0]) / place.scale, (at[1] - origin[1]) / place.scale];
}

/** With another scale, between the limits, and the same point of the image at `at`. */
export function zoomed(place, raster, canvas, scale, at) {
  const fit = fitted(raster, canvas);
  if (scale <= fit.scale && scale < place.scale) return fit;
  const limited = Math.min(scale, Math.max(fit.scale, MOST));
  const change = 1 / place.scale - 1 / limited;
  const across = (at[0] - canvas.width / 2) * change;
  const down = (at[1] - canvas.height / 2) * change;
  return within(raster, { x: place.x + across, y: place.y + down, scale: limited });
}

/** Moved with its picture by canvas pixels. */
export function moved({ x, y, scale }, raster, [across, down]) {
  return within(raster, { x: x - across / scale, y: y - down / scale, scale });
}

/** The middle of the canvas stays on the image: it cannot be lost. */
export function within({ rows, columns }, { x, y, scale }) {
  return { x: Math.min(columns, Math.max(0, x)), y: Math.min(rows, Math.max(0, y)), scale };
}

export const isSame = (one, other) =>
  one.x === other.x && one.y === other.y && one.scale === other.scale;
