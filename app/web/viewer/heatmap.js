// The heatmap of an answer -> colour over the image, and marks where it is highest.

import { colourOf } from "./colours.js";
import { greyOfPng } from "./png.js";

const PER_CELL = 24; // colours along a cell: a cell is some hundred pixels of the image
const RING = 12; // radii and lengths in CSS pixels
const TICK = 8;
const MARK = "#8fe3ff"; // a hue that neither the image nor the map has
const HALO = "rgba(0, 0, 0, 0.75)";

/** By map value, as a canvas holds it: alpha is the value. */
const PALETTE = Uint32Array.from({ length: 256 }, (_, value) => {
  const [red, green, blue] = colourOf(value / 255);
  return ((value << 24) | (blue << 16) | (green << 8) | red) >>> 0;
});

/**
 * @typedef {object} Heatmap
 * @property {HTMLCanvasElement|null} picture the map in colour; its alpha is its value
 * @property {number} rows of the map's grid
 * @property {number} columns
 * @property {[number[], number[]]} affine cells -> pixels of the image, both from their centres
 * @property {{row, column}|null} peak
 * @property {{top, left, height, width}|null} box around what joins the peak
 * @property {{top, left, height, width}|null} breast what the map covers
 */

/** The `heatmap` of an answer, ready to be drawn; without its `map` there are only the marks. */
export async function heatmapOf({ map, map_to_original: affine, peak, box }) {
  if (!map) return { picture: null, peak, box, breast: null };
  const { rows, columns, values } = await greyOfPng(bytesOf(map.data));
  const picture = coloured({ rows, columns, values });
  return { picture, rows, columns, affine, peak, box, breast: covered(affine, rows, columns) };
}

/** The part of the image that the map covers: the breast as the service found it. */
function covered([[stepX, , x], [, stepY, y]], rows, columns) {
  const [width, height] = [Math.abs(stepX) * columns, stepY * rows];
  const last = x + stepX * (columns - 1);
  // from the centres of the first cell and pixel to their edges
  const left = Math.min(x, last) - Math.abs(stepX) / 2 + 0.5;
  return { left, top: y - stepY / 2 + 0.5, width, height };
}

/**
 * Draw over the image that lies at `origin` with `scale` canvas pixels for one of its own.
 * `opacity` is that of the largest value; `density` canvas pixels make a CSS pixel.
 */
export function drawHeatmap(context, heatmap, { origin, scale }, { opacity, density }) {
  const at = ({ row, column }) => [
    origin[0] + (column + 0.5) * scale, origin[1] + (row + 0.5) * scale,
  ];
  const half = (Math.round(density) % 2) / 2; // a line of one pixel lies on the middle of pixels
  const sharp = (position) => Math.round(position - half) + half;
  context.save();
  if (heatmap.picture) {
    const { affine: [[a, c, e], [b, d, f]], picture, rows, columns } = heatmap;
    const [x, y] = at({ row: f, column: e });
    context.setTransform(a * scale, b * scale, c * scale, d * scale, x, y);
    context.globalAlpha = opacity;
    context.imageSmoothingEnabled = true;
    context.drawImage(picture, -0.5, -0.5, columns, rows);
    context.globalAlpha = 1;
    context.resetTransform();
  }
  if (heatmap.box) {
    const { top, left, height, width } = heatmap.box;
    const [x, y] = [sharp(origin[0] + left * scale), sharp(origin[1] + top * scale)];
    const [right, bottom] = [left + width, top + height];
    context.beginPath();
    context.rect(x, y, sharp(origin[0] + right * scale) - x, sharp(origin[1] + bottom * scale) - y);
    stroke(context, density, 1);
  }
  if (heatmap.peak) markPeak(context, at(heatmap.peak), density);
  context.restore();
}

/** A ring and four ticks: what lies at the peak stays visible. */
function markPeak(context, [x, y], density) {
  const [inner, outer] = [RING * density, (RING + TICK) * density];
  context.beginPath();
  context.arc(x, y, inner, 0, 2 * Math.PI);
  for (const [across, down] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
    context.moveTo(x + across * inner, y + down * inner);
    context.lineTo(x + across * outer, y + down * outer);
  }
  stroke(context, density, 1.5);
}

/** A line that is seen on any grey and any colour. */
function stroke(context, density, width) {
  for (const [style, more] of [[HALO, 2], [MARK, 0]]) {
    context.strokeStyle = style;
    context.lineWidth = (width + more) * density;
    context.stroke();
  }
}

function coloured({ rows, columns, values }) {
  const [width, height] = [columns * PER_CELL, rows * PER_CELL];
  const across = shares(columns);
  const down = shares(rows);
  const wide = new Float32Array(rows * width);
  for (let row = 0; row < rows; row += 1) {
    for (let x = 0; x < width; x += 1) {
      for (const [column, share] of across[x]) {
        wide[row * width + x] += share * values[row * columns + column];
      }
    }
  }
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      let value = 0;
      for (const [row, share] of down[y]) value += share * wide[row * width + x];
      pixels[y * width + x] = PALETTE[Math.min(255, Math.max(0, Math.round(value)))];
    }
  }
  const picture = Object.assign(document.createElement("canvas"), { width, height });
  picture.getContext("2d").putImageData(image, 0, 0);
  return picture;
}

/** For each colour along `count` cells: the four cells around it and their shares (a cubic curve
 * through the values, Catmull and Rom's). */
function shares(count) {
  return Array.from({ length: count * PER_CELL }, (_, place) => {
    const at = (place + 0.5) / PER_CELL - 0.5;
    const first = Math.floor(at);
    const t = at - first;
    const weights = [
      ((2 - t) * t - 1) * t, (3 * t - 5) * t * t + 2, ((4 - 3 * t) * t + 1) * t, (t - 1) * t * t,
    ];
    return weights.map((weight, each) => [
      Math.min(count - 1, Math.max(0, first - 1 + each)), weight / 2,
    ]);
  });
}

const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
