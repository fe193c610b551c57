// Grey words of the service -> a small canvas.

import { windowTable } from "./viewer/window.js";

/** Draw an answer of `/pixels` (`{header, buffer}`) as it is shown before anybody turns a knob. */
export function drawThumbnail(canvas, { header, buffer }) {
  const { rows, columns, bits, low, high, inverted } = header;
  const words = bits === 16 ? new Uint16Array(buffer) : new Uint8Array(buffer);
  const table = windowTable({ low, high: Math.max(high, low + 1), turned: inverted }, bits);
  const picture = new ImageData(columns, rows);
  new Uint32Array(picture.data.buffer).set(Uint32Array.from(words, (word) => table[word]));
  Object.assign(canvas, { width: columns, height: rows });
  canvas.getContext("2d").putImageData(picture, 0, 0);
}
