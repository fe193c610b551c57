// In what part of the breasts cancer was found, against the probability that the model gave them.

import { el, svg } from "../dom.js";
import { bottomAxis, dataTable, frame, leftAxis, path, readable } from "../plots/frame.js";
import { words } from "../words.js";

const QUARTERS = [0, 0.25, 0.5, 0.75, 1];

/** The plot of `figures.reliability` with the band of calibration, as an element. */
export function reliabilityPlot(figures) {
  const bins = figures.reliability;
  const plot = frame({
    name: words.about.reliabilityName(bins),
    size: [360, 370],
    margin: { left: 42, right: 8, top: 28, bottom: 40 },
    xDomain: [0, 1],
    yDomain: [0, 1],
  });
  const { x, y } = plot;
  plot.picture.append(
    leftAxis(plot, QUARTERS, words.numbers.percent, words.about.reliabilityY),
    bottomAxis(
      plot, QUARTERS.map(x),
      QUARTERS.map((share) => ({
        place: x(share), text: words.numbers.percent(share), anchor: share === 1 ? "end" : "middle",
      })),
      words.about.reliabilityX,
    ),
    svg("path", { class: "band", d: bandPath(plot, figures.calibration_band.points) }),
    svg("line", { class: "chance", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }),
    ...bins.map(({ probability, observed }) =>
      svg("line", {
        class: "interval", x1: x(probability), x2: x(probability), y1: y(observed.low),
        y2: y(observed.high),
      })),
    ...bins.map(({ probability, observed }) =>
      svg("circle", { class: "bin", cx: x(probability), cy: y(observed.value), r: 4 })),
  );
  const places = bins.map((bin) => ({
    x: x(bin.probability), y: y(bin.observed.value), text: words.about.reliabilityAt(bin),
  }));
  return el(
    "figure",
    { class: "plot-figure" },
    readable(plot.picture, places, { name: words.about.reliabilityKeys }),
    dataTable(words.plots.data, words.about.reliabilityColumns, bins.map(
      ({ probability, count, observed }) => [
        words.numbers.percentFine(probability),
        String(count),
        words.numbers.percentFine(observed.value),
        `${words.numbers.percentFine(observed.low)} – ${words.numbers.percentFine(observed.high)}`,
      ],
    )),
  );
}

function bandPath({ x, y }, points) {
  const upper = points.map(({ probability, high }) => [x(probability), y(high)]);
  const lower = points.map(({ probability, low }) => [x(probability), y(low)]);
  return `${path([...upper, ...lower.reverse()])}Z`;
}
