// Viewers of one breast that move together.

/**
 * What a person does to one of `viewers`, the others do too: zoom, so that a millimetre is as long
 * in all images that say their spacing, opacity, the place relative to the breast in each image,
 * and with `windows` the grey values relative to each image's own.
 * Answers a function that ends it.
 */
export function link(viewers, { windows = true } = {}) {
  const follow = (source, event, state) =>
    source.on(event, () =>
      viewers.forEach((other) => other !== source && other.setState(state(source, other))));
  const stops = viewers.flatMap((source) => [
    follow(source, "view", placeIn),
    follow(source, "opacity", opacityOf),
    ...(windows ? [follow(source, "window", windowOf)] : []),
  ]);
  return () => stops.forEach((stop) => stop());
}

/** The part of a state that shows in `other` what is seen in `source`. */
export function placeIn(source, other) {
  const { centre, scale } = source.getState();
  const isWhole = scale === 1 && centre.every((part) => part === 0.5);
  if (isWhole) return { scale, centre };
  const [from, to] = [source.breast(), other.breast()];
  const isTrue = source.perMm() && other.perMm();
  return {
    ...(isTrue ? { perMm: source.perMm() } : { scale }),
    centre: [
      to.left + ((centre[0] - from.left) / from.width) * to.width,
      to.top + ((centre[1] - from.top) / from.height) * to.height,
    ],
  };
}

function opacityOf(source) {
  const { opacity } = source.getState();
  return { opacity };
}

function windowOf(source) {
  const { window, inverted } = source.getState();
  return { window, inverted };
}
