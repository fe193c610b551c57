// Window and level: which grey value is shown how bright.

const VALUES = { 8: 256, 16: 65536 };

/**
 * A pixel as a canvas holds it, for every grey value of `bits` (8 or 16): black up to `low`, white
 * from `high` on, a straight line between; `turned` exchanges black and white. The table is filled
 * into `table` if that has the right length.
 */
export function windowTable({ low, high, turned }, bits, table = null) {
  const length = VALUES[bits];
  const pixels = table?.length === length ? table : new Uint32Array(length);
  const step = 255 / (high - low);
  for (let value = 0; value < length; value += 1) {
    const part = (value - low) * step;
    const grey = part <= 0 ? 0 : part >= 255 ? 255 : (part + 0.5) | 0;
    // alpha, blue, green, red: the order of bytes on a little endian machine
    pixels[value] = (0xff000000 | ((turned ? 255 - grey : grey) * 0x010101)) >>> 0;
  }
  return pixels;
}

/** `low` and `high` as parts of the raster's own range -> grey values, at least one apart. */
export function greysOf(raster, { low, high }) {
  const range = Math.max(1, raster.high - raster.low);
  const black = raster.low + low * range;
  return { low: black, high: Math.max(black + 1, raster.low + high * range) };
}

/** The other way. */
export function partsOf(raster, { low, high }) {
  const range = Math.max(1, raster.high - raster.low);
  return { low: (low - raster.low) / range, high: (high - raster.low) / range };
}

const WIDTHS = [1 / 256, 4]; // parts of the raster's own range
const LEVELS = [-1, 2];

/** A window of parts made wider and raised, within what is of use. */
export function changed({ low, high }, wider, raised) {
  const width = between(high - low + wider, WIDTHS);
  const level = between((low + high) / 2 + raised, LEVELS);
  return { low: level - width / 2, high: level + width / 2 };
}

const between = (value, [least, most]) => Math.min(most, Math.max(least, value));
