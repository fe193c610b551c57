// The probability of a breast over time, as it was after each exam, and what its interval is.

import { el, fill, svg } from "../dom.js";
import { words } from "../words.js";
import { FONT, bottomAxis, dataTable, frame, leftAxis, path, readable, round } from "./frame.js";
import { apart, linear, widthOf } from "./scale.js";

const SIZE = [340, 200];
const MARGIN = { left: 40, right: 14, top: 14, bottom: 26 };
const BEFORE = 46; // the place of what is known before any exam, left of time
const NARROW_MS = 120 * 86_400_000; // exams within it are told apart by the day

/**
 * Draw a breast's exams into `host`.
 *
 * @param {{date: string, probability: number, low: number|null, high: number|null}[]} exams in
 *   order; `low` and `high` are the interval of how often cancer was found at that probability
 * @param {number|null} before the probability before any exam
 * @param {number} threshold that of the operating point `thresholdName`
 */
export function timePlot(host, { exams, before, threshold, thresholdName }) {
  const plot = frame({
    name: words.plots.timeName(exams, threshold, thresholdName),
    size: SIZE, margin: MARGIN, xDomain: [0, 1], yDomain: [0, 1],
  });
  const start = before === null ? null : [plot.box.left + 16, plot.y(before)];
  const points = placed(exams, before, plot, start);
  const line = points.map(({ x, y }) => [x, y]);
  plot.picture.append(
    leftAxis(plot, [0, 0.25, 0.5, 0.75, 1], words.numbers.percent),
    bottomAxis(plot, points.map(({ x }) => x), dates(points, start)),
    ...thresholdLine(plot, points, threshold, thresholdName),
    ...points.filter(({ low }) => low !== null).map(({ x, low, high }) =>
      svg("line", { class: "interval", x1: x, x2: x, y1: plot.y(low), y2: plot.y(high) })),
    svg("path", { class: "curve", d: path(line) }),
    ...(start
      ? [
        svg("path", { class: "curve is-start", d: path([start, line[0]]) }),
        svg("circle", { class: "start", cx: start[0], cy: start[1], r: 3.5 }),
      ]
      : []),
    ...points.map(({ x, y, probability }) =>
      svg("circle", {
        class: probability >= threshold ? "exam-dot is-positive" : "exam-dot is-negative",
        cx: x, cy: round(y), r: 4.5,
      })),
    ...changes(plot, points),
  );
  const places = points.map((point) => ({ x: point.x, y: point.y, text: words.plots.exam(point) }));
  fill(
    host,
    el(
      "figure",
      { class: "plot-figure" },
      readable(plot.picture, places, { name: words.plots.timeKeys }),
      dataTable(
        words.plots.data,
        words.plots.timeColumns,
        [
          ...(start ? [[words.plots.before, words.numbers.percentFine(before), "", ""]] : []),
          ...points.map((point) => [
            point.date,
            words.numbers.percentFine(point.probability),
            words.plots.interval(point),
            point.change === null ? "" : words.numbers.points(point.change),
          ]),
        ],
      ),
    ),
  );
}

/**
 * Between what shares cancer was found among breasts that were given `probability`: `{low, high}`,
 * or null where the figures (`figures.json`) do not say, or have seen no such probability.
 */
export function bandAt(figures, probability) {
  const points = figures?.calibration_band?.points ?? [];
  const after = points.findIndex((point) => point.probability >= probability);
  if (after < 0 || (after === 0 && points[0].probability > probability)) return null;
  if (after === 0) return { low: points[0].low, high: points[0].high };
  const [left, right] = [points[after - 1], points[after]];
  const between = (key) =>
    linear([left.probability, right.probability], [left[key], right[key]])(probability);
  return { low: between("low"), high: between("high") };
}

/** The exams with their places, true to the days between them, and how much each changed. */
function placed(exams, before, plot, start) {
  const times = exams.map(({ date }) => Date.parse(`${date}T00:00:00Z`));
  const left = start ? plot.box.left + BEFORE : plot.box.left + 8;
  const along = linear([times[0], times.at(-1)], [left, plot.box.right - 8]);
  return exams.map((exam, index) => {
    const last = index ? exams[index - 1].probability : before;
    return {
      low: null,
      high: null,
      ...exam,
      time: times[index],
      x: round(exams.length === 1 ? (left + plot.box.right) / 2 : along(times[index])),
      y: plot.y(exam.probability),
      change: last === null ? null : exam.probability - last,
    };
  });
}

/** As many dates as fit, the first and the last before the others. */
function dates(points, start) {
  const narrow = points.at(-1).time - points[0].time < NARROW_MS;
  const text = narrow ? words.plots.day : words.plots.month;
  const ends = [points[0], points.at(-1), ...points.slice(1, -1)];
  const labels = [...new Set(ends)].map((point) => ({
    place: point.x,
    text: text(point.date),
    anchor: anchorOf(point, points),
  }));
  const origin = start ? [{ place: start[0], text: words.plots.start }] : [];
  return apart([...origin, ...labels], FONT);
}

function anchorOf(point, points) {
  if (points.length === 1) return "middle";
  return { 0: "start", [points.length - 1]: "end" }[points.indexOf(point)] ?? "middle";
}

/** A line at the threshold, and its name where no exam is. */
function thresholdLine({ box, y }, points, threshold, name) {
  const text = words.plots.threshold(name, threshold);
  const width = widthOf(text, FONT);
  const corners = [
    ["end", box.right, -5], ["end", box.right, 14], ["start", box.left + 4, -5],
    ["start", box.left + 4, 14],
  ].map(([anchor, x, dy]) => ({ anchor, x, y: y(threshold) + dy }));
  const isFree = (corner) => {
    const left = corner.anchor === "end" ? corner.x - width : corner.x;
    return points.every((point) => {
      const beside = point.x < left - 8 || point.x > left + width + 8;
      return beside || Math.abs(point.y - corner.y + 4) > 22;
    });
  };
  const corner = corners.find(isFree) ?? corners[0];
  const [y1, y2] = [y(threshold), y(threshold)];
  const place = { x: corner.x, y: corner.y, "text-anchor": corner.anchor };
  return [
    svg("line", { class: "threshold", x1: box.left, x2: box.right, y1, y2 }),
    svg("text", { class: "threshold-name", ...place }, text),
  ];
}

/** How much each exam changed, above or below its point, the largest first where not all fit. */
function changes({ box }, points) {
  const text = points.length > 3 ? words.plots.changeShort : words.plots.change;
  const kept = [];
  const told = points.filter(({ change }) => change !== null);
  for (const point of told.sort((a, b) => Math.abs(b.change) - Math.abs(a.change))) {
    const label = { text: text(point.change), x: point.x, y: point.y - 10, anchor: "middle" };
    const half = widthOf(label.text, FONT) / 2;
    if (point.change < 0 && point.y + 18 < box.bottom) label.y = point.y + 18;
    if (label.x + half > box.right + MARGIN.right) {
      Object.assign(label, { anchor: "end", x: box.right + 8 });
    }
    const isClear = kept.every((other) =>
      Math.abs(other.x - label.x) > half + other.half + 3 || Math.abs(other.y - label.y) > 12);
    const touchesPoint = points.some((other) => {
      const isBeside = Math.abs(other.x - label.x) < half + 5;
      return other !== point && isBeside && Math.abs(other.y - label.y + 4) < 9;
    });
    if (isClear && !touchesPoint) kept.push({ ...label, half });
  }
  return kept.map(({ text: told, x, y, anchor }) =>
    svg("text", { class: "change", x, y: round(y), "text-anchor": anchor }, told));
}
