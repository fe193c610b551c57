// The pixels of a mammogram, and the same made smaller and smaller.

/**
 * @typedef {object} Level an image of half the size of the one before it
 * @property {Uint8Array|Uint16Array} words grey values, row by row
 * @property {number} rows
 * @property {number} columns
 *
 * @typedef {object} Raster
 * @property {number} rows
 * @property {number} columns
 * @property {number} low grey value shown as black unless somebody chooses otherwise
 * @property {number} high the same for white
 * @property {boolean} inverted the background is bright: shown turned
 * @property {[number, number]|null} spacing mm between rows and between columns
 * @property {Level[]} levels the image itself, then what `levelOf` has made of it; none in the
 *   places of those that are finer than what has come of the image
 */

/** The raster of an answer of `/pixels`: its header and its body, words in little endian. */
export function rasterOf({ header, buffer }) {
  const { rows, columns, bits, low, high, inverted } = header;
  // Every machine with a browser is little endian
  const words = bits === 8 ? new Uint8Array(buffer) : new Uint16Array(buffer);
  if (words.length !== rows * columns) throw new RangeError("pixels and header do not agree");
  return {
    rows, columns, low, high, inverted,
    spacing: header.image.spacing_mm,
    levels: [{ words, rows, columns }],
  };
}

/** The same of an answer whose picture has 1 / 2 ** `step` of the image's size. */
export function coarseRasterOf(answer, step) {
  const { levels: [level], ...raster } = rasterOf(answer);
  const { rows, columns } = answer.header.image;
  return { ...raster, rows, columns, levels: [...Array(step).fill(null), level] };
}

/** How often the finest level that is there is halved. */
export const finest = ({ levels }) => levels.findIndex(Boolean);

/** The raster at 1 / 2 ** `step` of its size, or as small as it gets; made when first asked for. */
export function levelOf({ levels }, step) {
  while (levels.length <= step) {
    const last = levels.at(-1);
    if (last.rows === 1 && last.columns === 1) break;
    levels.push(halved(last));
  }
  return levels[Math.min(step, levels.length - 1)];
}

/** Means of two by two pixels. An odd side is rounded up: its last pixel is half as wide. */
function halved({ words, rows, columns }) {
  const small = { rows: (rows + 1) >> 1, columns: (columns + 1) >> 1 };
  const means = new words.constructor(small.rows * small.columns);
  const pairs = columns >> 1;
  let place = 0;
  for (let row = 0; row < small.rows; row += 1) {
    let upper = 2 * row * columns;
    let lower = 2 * row + 1 < rows ? upper + columns : upper;
    for (let pair = 0; pair < pairs; pair += 1) {
      means[place] =
        (words[upper] + words[upper + 1] + words[lower] + words[lower + 1] + 2) >> 2;
      place += 1;
      upper += 2;
      lower += 2;
    }
    if (columns & 1) {
      means[place] = (words[upper] + words[lower] + 1) >> 1;
      place += 1;
    }
  }
  return { words: means, ...small };
}
