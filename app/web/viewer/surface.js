// A canvas that is drawn pixel by pixel, or at half of its resolution.

/**
 * `paint(isCoarse, drawInto)` fills the canvas; `drawInto(pixels, {width, height}, share)` is given
 * the pixels to fill, in Uint32, and how long their sides are against the canvas' own.
 */
export function createSurface(canvas) {
  // It is read from main memory anyway, so let it stay there
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const small = document.createElement("canvas");
  const smallContext = small.getContext("2d", { willReadFrequently: true });
  const buffers = new Map(); // context -> its last ImageData

  function fill(target, { width, height }, drawInto, share) {
    let buffer = buffers.get(target);
    if (buffer?.width !== width || buffer.height !== height) {
      buffer = new ImageData(width, height);
      buffers.set(target, buffer);
    }
    drawInto(new Uint32Array(buffer.data.buffer), { width, height }, share);
    target.putImageData(buffer, 0, 0);
  }

  function paint(isCoarse, drawInto) {
    if (!isCoarse) return fill(context, canvas, drawInto, 1);
    const [width, height] = [(canvas.width + 1) >> 1, (canvas.height + 1) >> 1];
    if (small.width !== width || small.height !== height) Object.assign(small, { width, height });
    fill(smallContext, small, drawInto, 0.5);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(small, 0, 0, 2 * width, 2 * height);
  }

  function free() {
    buffers.clear();
    for (const each of [canvas, small]) Object.assign(each, { width: 0, height: 0 });
  }

  return { context, paint, free };
}
