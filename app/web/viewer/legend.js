// What the colours of a heatmap mean, and what they do not.

import { el, svg } from "../dom.js";
import { words } from "../words.js";
import { STOPS } from "./colours.js";

const [WIDTH, HEIGHT] = [240, 10];

let legends = 0;

/** A legend of the `heatmap` of an answer. */
export function createLegend({ target_class: target }) {
  legends += 1;
  const { title, least, most, means, meansNot, marks } = words.viewer.legend;
  return el(
    "section",
    { class: "viewer-legend", "aria-label": title },
    el("h3", {}, title),
    colourBar(`viewer-colours-${legends}`),
    el("div", { class: "viewer-legend-ends" }, el("span", {}, least), el("span", {}, most)),
    el("p", {}, means(target)),
    el("p", {}, marks),
    el("p", {}, el("strong", {}, meansNot)),
  );
}

function colourBar(id) {
  const stops = STOPS.map((colour, place) =>
    svg("stop", { offset: place / (STOPS.length - 1), "stop-color": `rgb(${colour})` }));
  return svg(
    "svg",
    {
      class: "viewer-colours", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none",
      "aria-hidden": "true",
    },
    svg("defs", {}, svg("linearGradient", { id }, ...stops)),
    svg("rect", { width: WIDTH, height: HEIGHT, fill: `url(#${id})` }),
  );
}
