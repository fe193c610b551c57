// An 8-bit grey PNG -> its values, exactly. A canvas would decode it too, but browsers that guard
// against fingerprinting add noise to what is read back from one.

const HEADER = 0x49484452; // IHDR
const DATA = 0x49444154; // IDAT
const SIGNATURE_LENGTH = 8;

/** `bytes` of a PNG without interlacing -> `{rows, columns, values}`. Throws a RangeError. */
export async function greyOfPng(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const data = [];
  let size = null;
  for (let place = SIGNATURE_LENGTH; place + 12 <= bytes.length; ) {
    const length = view.getUint32(place);
    const kind = view.getUint32(place + 4);
    const start = place + 8;
    if (kind === HEADER) {
      size = { columns: view.getUint32(start), rows: view.getUint32(start + 4) };
      const isGrey = view.getUint8(start + 8) === 8 && view.getUint8(start + 9) === 0;
      if (!isGrey || view.getUint8(start + 12)) throw new RangeError("not an 8-bit grey PNG");
    } else if (kind === DATA) {
      data.push(bytes.subarray(start, start + length));
    }
    place = start + length + 4; // after the checksum
  }
  if (!size) throw new RangeError("not a PNG");
  const stream = new Blob(data).stream().pipeThrough(new DecompressionStream("deflate"));
  const lines = new Uint8Array(await new Response(stream).arrayBuffer());
  return { ...size, values: unfiltered(lines, size) };
}

/** Undo the filter that each line begins with (ISO 15948 9.2), one byte a pixel. */
function unfiltered(lines, { rows, columns }) {
  if (lines.length !== rows * (columns + 1)) throw new RangeError("the PNG is cut short");
  const values = new Uint8Array(rows * columns);
  for (let row = 0; row < rows; row += 1) {
    const filter = lines[row * (columns + 1)];
    for (let column = 0; column < columns; column += 1) {
      const place = row * columns + column;
      const left = column ? values[place - 1] : 0;
      const above = row ? values[place - columns] : 0;
      const corner = row && column ? values[place - columns - 1] : 0;
      const known = [0, left, above, (left + above) >> 1, paeth(left, above, corner)][filter];
      values[place] = lines[place + row + 1] + known;
    }
  }
  return values;
}

function paeth(left, above, corner) {
  const guess = left + above - corner;
  const [byLeft, byAbove, byCorner] = [left, above, corner].map((each) => Math.abs(guess - each));
  if (byLeft <= byAbove && byLeft <= byCorner) return left;
  return byAbove <= byCorner ? above : corner;
}
