// What a viewer says in its corners: window, zoom, the grey value under the pointer, a scale.

import { el, fill } from "../dom.js";
import { words } from "../words.js";

const LENGTHS = [1, 2, 5, 10, 20, 50, 100, 200]; // mm
const SHARE = 0.26; // of the viewer's width that the scale may take
const QUIET = 600; // ms without a change, before it is told to a screen reader

const CORNERS = ["top-left", "top-right", "bottom-left", "bottom-right"];

export function createReadout() {
  const corners = Object.fromEntries(
    CORNERS.map((name) => [name, el("div", { class: "viewer-slot" })]),
  );
  const settings = el("p", { class: "viewer-settings" });
  const pointer = el("p", { class: "viewer-pointer" });
  const bar = el("div", { class: "viewer-scale-bar" });
  const length = el("p", {});
  const scale = el("div", { class: "viewer-scale", hidden: true }, length, bar);
  const said = el("p", { class: "viewer-unseen", role: "status" });
  const own = { "bottom-left": [pointer, settings], "bottom-right": [scale] };
  const elements = CORNERS.map((name) =>
    el("div", { class: `viewer-corner is-${name}` }, corners[name], ...(own[name] ?? [])));
  let quiet = 0;

  return {
    elements: [...elements, said],
    corner: (name) => corners[name],

    /** `window` in grey values, `zoom` in screen pixels for one of the image. */
    settings({ window, zoom, isTurned }) {
      fill(settings, words.viewer.settings(window.high - window.low,
        (window.high + window.low) / 2, zoom, isTurned));
    },

    /** `{column, row, grey, spacing}` under the pointer, or null. */
    pointer(seen) {
      fill(pointer, seen && words.viewer.pointer(seen));
    },

    /** `perMm` CSS pixels show a millimetre, null if that is unknown; `width` is the viewer's. */
    scale(perMm, width) {
      const mm = perMm && LENGTHS.findLast((each) => each * perMm <= width * SHARE);
      scale.hidden = !mm;
      if (!mm) return;
      fill(length, words.viewer.length(mm));
      bar.style.width = `${mm * perMm}px`;
    },

    /** Tell a screen reader, once nothing more changes. */
    say(text) {
      clearTimeout(quiet);
      quiet = setTimeout(() => fill(said, text), QUIET);
    },

    stop: () => clearTimeout(quiet),
  };
}
