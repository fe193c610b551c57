// The part of an image that is seen -> pixels of a canvas.

import { finest, levelOf } from "./raster.js";

const SMOOTH_UP_TO = 4; // times: beyond, the pixels of the image are seen as squares

/**
 * Draw a raster into `pixels`, [height][width] as a canvas holds them, through `table` (see
 * window.js). `origin` [x, y] is where the image's top left corner lies in them, and `scale` their
 * number for one pixel of the image. What is outside of the image becomes transparent.
 */
export function draw(pixels, { width, height }, raster, { origin, scale }, table) {
  // The nearest finer level: it is then made smaller by less than two
  const step = Math.max(finest(raster), Math.floor(Math.log2(1 / scale) + 1e-9));
  const level = levelOf(raster, step);
  const size = scale * 2 ** step;
  const across = seen(origin[0], raster.columns * scale, width);
  const down = seen(origin[1], raster.rows * scale, height);
  const isCovered = across.end - across.start === width && down.end - down.start === height;
  if (!isCovered) pixels.fill(0);
  if (across.end <= across.start || down.end <= down.start) return;
  const columns = samples(across, origin[0], size, level.columns);
  const rows = samples(down, origin[1], size, level.rows);
  const isSmooth = size <= SMOOTH_UP_TO && !(columns.isExact && rows.isExact);
  const copy = isSmooth && level.columns > 1 ? interpolate : pick;
  copy(pixels, width, { across, down, columns, rows }, level, table);
}

/** Which of `limit` pixels hold something of what lies from `origin` on; at least one does. */
function seen(origin, extent, limit) {
  const start = Math.max(0, Math.ceil(origin - 0.5));
  const end = Math.max(Math.ceil(origin + extent - 0.5), Math.ceil(origin - 0.5) + 1);
  return { start, end: Math.min(limit, end) };
}

/** For each pixel seen: the source pixel nearest to it, and the two that it lies between. */
function samples({ start, end }, origin, size, count) {
  const nearest = new Int32Array(end - start);
  const before = new Int32Array(end - start);
  const weights = new Int32Array(end - start); // of the one after `before`, of 256
  let isExact = true;
  for (let place = 0; place < nearest.length; place += 1) {
    const centre = (start + place + 0.5 - origin) / size;
    nearest[place] = Math.min(count - 1, Math.max(0, Math.floor(centre)));
    const at = Math.min(count - 1, Math.max(0, centre - 0.5));
    before[place] = Math.max(0, Math.min(count - 2, Math.floor(at)));
    weights[place] = Math.round((at - before[place]) * 256);
    if (weights[place] & 255) isExact = false;
  }
  return { nearest, before, weights, isExact };
}

function pick(pixels, width, { across, down, columns, rows }, level, table) {
  const { words } = level;
  const { nearest } = columns;
  const count = nearest.length;
  for (let row = 0; row < rows.nearest.length; row += 1) {
    const line = rows.nearest[row] * level.columns;
    const out = (down.start + row) * width + across.start;
    for (let column = 0; column < count; column += 1) {
      pixels[out + column] = table[words[line + nearest[column]]];
    }
  }
}

function interpolate(pixels, width, { across, down, columns, rows }, level, table) {
  const { words } = level;
  const { before, weights } = columns;
  const count = before.length;
  const next = level.rows > 1 ? level.columns : 0;
  for (let row = 0; row < rows.before.length; row += 1) {
    const line = rows.before[row] * level.columns;
    const share = rows.weights[row] >> 1; // of 128: 16 + 8 + 7 bits and a sign fit in 32
    const out = (down.start + row) * width + across.start;
    for (let column = 0; column < count; column += 1) {
      const upper = line + before[column];
      const lower = upper + next;
      const weight = weights[column];
      const a = words[upper];
      const c = words[lower];
      const top = (a << 8) + Math.imul(words[upper + 1] - a, weight);
      const bottom = (c << 8) + Math.imul(words[lower + 1] - c, weight);
      const grey = (top + (Math.imul(bottom - top, share) >> 7) + 128) >> 8;
      pixels[out + column] = table[grey];
    }
  }
}
