// What plots have in common: the picture with its name, axes, a line that reads out what is pointed
// at, and the data as a table.

import { el, fill, svg } from "../dom.js";
import { linear } from "./scale.js";

export const FONT = 11;

/**
 * An empty plot: `{picture, x, y, box}`; `x` and `y` take values to places. It is as wide as its
 * place is, up to `max-width` in plots.css, and `size` is [width, height] of its own units.
 */
export function frame({ name, size: [width, height], margin, xDomain, yDomain }) {
  const box = {
    left: margin.left, right: width - margin.right, top: margin.top, bottom: height - margin.bottom,
  };
  const picture = svg("svg", {
    viewBox: `0 0 ${width} ${height}`, class: "plot", role: "img", "aria-label": name,
  });
  return {
    picture,
    box,
    x: linear(xDomain, [box.left, box.right]),
    y: linear(yDomain, [box.bottom, box.top]),
  };
}

/** Shares at the left: a fine line and a number at each of `values`. */
export function leftAxis({ box, y }, values, text, title) {
  return svg(
    "g",
    { class: "axis" },
    ...values.flatMap((value) => [
      svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y(value), y2: y(value) }),
      svg("text", { x: box.left - 6, y: y(value) + 4, "text-anchor": "end" }, text(value)),
    ]),
    title
      ? svg("text", { class: "title", x: 0, y: box.top - 12, "text-anchor": "start" }, title)
      : null,
  );
}

/** Labels (`{place, text, anchor}`) below the plot, and a tick at each of `ticks`. */
export function bottomAxis({ box }, ticks, labels, title) {
  const end = { x: box.right, y: box.bottom + 33, "text-anchor": "end" };
  return svg(
    "g",
    { class: "axis" },
    svg("line", { class: "base", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
    ...ticks.map((place) =>
      svg("line", { class: "base", x1: place, x2: place, y1: box.bottom, y2: box.bottom + 4 })),
    ...labels.map(({ place, text, anchor = "middle" }) =>
      svg("text", { x: place, y: box.bottom + 17, "text-anchor": anchor }, text)),
    title ? svg("text", { class: "title", ...end }, title) : null,
  );
}

/** `[[x, y], ...]` as a path. */
export const path = (points) =>
  points.map(([x, y], index) => `${index ? "L" : "M"}${round(x)} ${round(y)}`).join("");

export const round = (value) => Math.round(100 * value) / 100;

/**
 * The plot with a line below that says what is at the nearest of `places` (`{x, y, text}`, in units
 * of the plot): of the pointer, of a touch, or chosen by the arrow keys. Until then it says
 * `silent`, or what is at `first`.
 */
export function readable(picture, places, { name, first = places.length - 1, silent = "" }) {
  const said = el("p", { class: "plot-said", role: "status" });
  const mark = svg("circle", { class: "at", r: 6, visibility: "hidden" });
  picture.append(mark);
  const element = el(
    "div",
    { class: "plot-read", role: "group", tabIndex: 0, "aria-label": name },
    picture,
    said,
  );
  let at = first;
  function say(index) {
    at = Math.min(Math.max(index, 0), places.length - 1);
    const { x, y, text } = places[at];
    mark.setAttribute("cx", round(x));
    mark.setAttribute("cy", round(y));
    mark.setAttribute("visibility", "visible");
    fill(said, text);
  }
  function rest() {
    mark.setAttribute("visibility", "hidden");
    fill(said, silent || places[first].text);
    at = first;
  }
  function near(event) {
    const ctm = picture.getScreenCTM();
    if (!ctm) return;
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(ctm.inverse());
    const far = places.map(({ x, y }) => (x - point.x) ** 2 + 0.2 * (y - point.y) ** 2);
    say(far.indexOf(Math.min(...far)));
  }
  picture.addEventListener("pointermove", near);
  picture.addEventListener("pointerdown", near);
  picture.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && rest());
  element.addEventListener("focus", () => say(at));
  element.addEventListener("blur", rest);
  element.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: places.length - 1 };
    const to = steps[event.key];
    if (to === undefined) return;
    event.preventDefault();
    say(to);
  });
  rest();
  return element;
}

/** The data of a plot for who reads or hears it: `columns` and rows of texts, folded away. */
export function dataTable(summary, columns, rows) {
  const row = ([head, ...cells]) =>
    el("tr", {}, el("th", { scope: "row" }, head), ...cells.map((text) => el("td", {}, text)));
  return el(
    "details",
    { class: "plot-data" },
    el("summary", {}, summary),
    el(
      "div",
      { class: "plot-scroll", tabIndex: 0, role: "group", "aria-label": summary },
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, ...columns.map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, ...rows.map(row)),
      ),
    ),
  );
}
