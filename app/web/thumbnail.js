// Grey words of the service -> a small canvas.

/** Draw an answer of `/pixels` (`{header, buffer}`) as it is shown before anybody turns a knob. */
export function drawThumbnail(canvas, { header, buffer }) {
  const { rows, columns, bits, low, high, inverted } = header;
  const words = bits === 16 ? new Uint16Array(buffer) : new Uint8Array(buffer);
  const picture = new ImageData(columns, rows);
  const scale = 255 / Math.max(1, high - low);
  for (let i = 0; i < words.length; i += 1) {
    const grey = (words[i] - low) * scale;
    picture.data.fill(inverted ? 255 - grey : grey, 4 * i, 4 * i + 3);
    picture.data[4 * i + 3] = 255;
  }
  Object.assign(canvas, { width: columns, height: rows });
  canvas.getContext("2d").putImageData(picture, 0, 0);
}
