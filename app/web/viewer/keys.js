// Keys on a viewer -> what is meant by them.

const PAN = 60; // CSS pixels
const WINDOW = 20; // as far as a drag of so many
const ZOOM = 1.25;
const OPACITY = 0.1;

const ARROWS = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
};

/** What a key does, as a function of `meant` (see viewer.js); null if it is none of ours. */
export function keyMeaning({ key, shiftKey, ctrlKey, metaKey, altKey }) {
  if (metaKey || (ctrlKey && !altKey)) return null; // those of the browser; both is AltGr
  const arrow = ARROWS[key];
  if (arrow && shiftKey) return (meant) => meant.window(arrow.map((way) => way * WINDOW));
  // The view goes where the arrow points: the picture the other way
  if (arrow) return (meant) => meant.pan(arrow.map((way) => -way * PAN));
  return MEANINGS[key.toLowerCase()] ?? null;
}

const MEANINGS = {
  "+": (meant) => meant.zoom(ZOOM),
  "=": (meant) => meant.zoom(ZOOM),
  "-": (meant) => meant.zoom(1 / ZOOM),
  _: (meant) => meant.zoom(1 / ZOOM),
  0: (meant) => meant.fit(),
  1: (meant) => meant.actualSize(),
  i: (meant) => meant.invert(),
  h: (meant) => meant.toggleHeatmap(),
  "[": (meant) => meant.fade(-OPACITY),
  "]": (meant) => meant.fade(OPACITY),
  r: (meant) => meant.reset(),
};
