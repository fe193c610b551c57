// The colours of a heatmap: inferno, as the service draws it. Its lightness only rises, so that the
// order is seen by the colour-blind and on grey paper.

/** Red, green and blue at equal steps from nothing to the largest value. */
export const STOPS = [
  [0, 0, 4], [24, 12, 60], [66, 10, 104], [106, 23, 110], [147, 38, 103], [188, 55, 84],
  [221, 81, 58], [243, 118, 27], [252, 165, 10], [246, 215, 70], [252, 255, 164],
];

/** The colour of a part, 0 to 1, of the largest value. */
export function colourOf(part) {
  const at = Math.min(1, Math.max(0, part)) * (STOPS.length - 1);
  const before = Math.min(STOPS.length - 2, Math.floor(at));
  const [one, next] = [STOPS[before], STOPS[before + 1]];
  return one.map((value, channel) => Math.round(value + (next[channel] - value) * (at - before)));
}
