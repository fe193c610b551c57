// What every threshold finds, against the false alarms that it raises.

import { el, fill, svg } from "../dom.js";
import { FONT, bottomAxis, dataTable, frame, leftAxis, path, readable } from "../plots/frame.js";
import { widthOf } from "../plots/scale.js";
import { words } from "../words.js";

const QUARTERS = [0, 0.25, 0.5, 0.75, 1];

/** Draw the curves of `figures` into `host`, with the operating points; `chosen` is marked. */
export function rocPlot(host, figures, chosen) {
  const { breast, image } = figures.roc;
  const plot = frame({
    name: words.about.rocName(chosen, breast.auc),
    size: [360, 370],
    margin: { left: 42, right: 8, top: 28, bottom: 40 },
    xDomain: [0, 1],
    yDomain: [0, 1],
  });
  const { x, y, box } = plot;
  const curve = ({ points }) =>
    points.map((point) => [x(point.false_positive_rate), y(point.sensitivity)]);
  plot.picture.append(
    leftAxis(plot, QUARTERS, hundredth, words.about.rocY),
    bottomAxis(
      plot, QUARTERS.map(x), QUARTERS.map((share) => ({ place: x(share), text: hundredth(share) })),
      words.about.rocX,
    ),
    svg("line", { class: "chance", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }),
    svg("path", { class: "curve is-second", d: path(curve(image)) }),
    svg("path", { class: "curve", d: path(curve(breast)) }),
    ...legend(box, { breast, image }),
    ...figures.operating_points.map((point) => pointMark(plot, point, point.name === chosen.name)),
  );
  const places = breast.points.map((point) => ({
    x: x(point.false_positive_rate), y: y(point.sensitivity), text: words.about.rocAt(point),
  }));
  fill(
    host,
    el(
      "figure",
      { class: "plot-figure" },
      readable(plot.picture, places, {
        name: words.about.rocKeys,
        first: nearest(breast.points, chosen),
        silent: words.about.rocRest,
      }),
      dataTable(words.plots.data, words.about.rocColumns, breast.points.map((point) => [
        point.threshold === null ? "—" : words.numbers.percentFine(point.threshold),
        hundredth(point.sensitivity),
        hundredth(point.false_positive_rate),
      ])),
    ),
  );
}

const hundredth = (share) => String(Math.round(100 * share));

/** The operating point; if it is chosen, with the intervals of what it finds and leaves alone. */
function pointMark({ x, y }, point, isChosen) {
  const [cx, cy] = [x(1 - point.specificity), y(point.sensitivity)];
  const [low, high] = point.sensitivity_interval;
  const [left, right] = point.specificity_interval;
  return svg(
    "g",
    { class: isChosen ? "point is-chosen" : "point", "data-point": point.name },
    ...(isChosen
      ? [
        svg("line", { class: "interval", x1: cx, x2: cx, y1: y(low), y2: y(high) }),
        svg("line", { class: "interval", x1: x(1 - left), x2: x(1 - right), y1: cy, y2: cy }),
      ]
      : []),
    svg("circle", { cx, cy, r: isChosen ? 5.5 : 4 }),
    isChosen
      ? svg("text", { x: cx + 10, y: cy + 18 }, words.points(point.name).split(" (")[0])
      : null,
  );
}

function legend(box, rocs) {
  return Object.entries(rocs).map(([unit, { auc }], index) => {
    const y = box.bottom - 28 + 16 * index;
    const text = words.about.auc(words.about.rocUnits[unit], auc);
    const left = box.right - widthOf(text, FONT) - 22;
    return svg(
      "g",
      {},
      svg("line", {
        class: unit === "breast" ? "curve" : "curve is-second", x1: left, x2: left + 18, y1: y - 4,
        y2: y - 4,
      }),
      svg("text", { class: "legend", x: box.right, y, "text-anchor": "end" }, text),
    );
  });
}

/** The place on the curve that is nearest to an operating point. */
function nearest(points, { sensitivity, specificity }) {
  const far = points.map((point) =>
    (point.false_positive_rate - 1 + specificity) ** 2 + (point.sensitivity - sensitivity) ** 2);
  return far.indexOf(Math.min(...far));
}
