// The signs on the tools, drawn in the colour of the text.

import { svg } from "../dom.js";

const PATHS = {
  window: [
    "M10 3a7 7 0 1 0 0 14 7 7 0 0 0 0-14z",
    { d: "M10 3a7 7 0 0 0 0 14z", fill: "currentColor" },
  ],
  pan: [
    "M10 2v16M2 10h16",
    "M7.5 4.5 10 2l2.5 2.5M7.5 15.5 10 18l2.5-2.5M4.5 7.5 2 10l2.5 2.5M15.5 7.5 18 10l-2.5 2.5",
  ],
  zoomIn: ["M8.5 3a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11zM12.5 12.5 17 17M8.5 6v5M6 8.5h5"],
  zoomOut: ["M8.5 3a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11zM12.5 12.5 17 17M6 8.5h5"],
  fit: ["M3 7V3h4M13 3h4v4M17 13v4h-4M7 17H3v-4", "M7 7h6v6H7z"],
  invert: ["M3 3h14v14H3z", { d: "M17 3v14H3z", fill: "currentColor" }],
  heatmap: [
    "M10 2.8a7.2 7.2 0 1 0 0 14.4 7.2 7.2 0 0 0 0-14.4z",
    "M10 6a4 4 0 1 0 0 8 4 4 0 0 0 0-8z",
    { d: "M10 8.6a1.4 1.4 0 1 0 0 2.8 1.4 1.4 0 0 0 0-2.8z", fill: "currentColor" },
  ],
  reset: ["M4.2 12.2a6.2 6.2 0 1 0 .7-6", "M4.5 2.5v4h4"],
};

export function icon(name) {
  const strokes = PATHS[name].map((path) =>
    svg("path", typeof path === "string" ? { d: path } : path));
  return svg("svg", {
    viewBox: "0 0 20 20", width: 20, height: 20, fill: "none", stroke: "currentColor",
    "stroke-width": 1.5, "stroke-linecap": "round", "stroke-linejoin": "round",
    "aria-hidden": "true",
  }, ...strokes);
}
