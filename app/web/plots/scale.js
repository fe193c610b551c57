// Values -> places on a plot, and what stands at an axis.

const GAP = 4; // between two labels

/** The line that takes `from` to `start` and `to` to `end`. */
export function linear([from, to], [start, end]) {
  const share = (value) => (to === from ? 0.5 : (value - from) / (to - from));
  return (value) => start + share(value) * (end - start);
}

/**
 * Those of `labels` (`{place, text, anchor}`, in the order of their importance) that do not run
 * into each other on one line, from left to right.
 */
export function apart(labels, size) {
  const kept = [];
  for (const label of labels) {
    const [left, right] = reach(label, size);
    const isClear = kept.every((other) => {
      const [start, end] = reach(other, size);
      return right + GAP < start || end + GAP < left;
    });
    if (isClear) kept.push(label);
  }
  return kept.sort((a, b) => a.place - b.place);
}

/** What a text of a font size is about as wide as, in the same units. */
export const widthOf = (text, size) => 0.56 * size * text.length;

function reach({ place, text, anchor = "middle" }, size) {
  const width = widthOf(text, size);
  const left = { start: place, middle: place - width / 2, end: place - width }[anchor];
  return [left, left + width];
}
