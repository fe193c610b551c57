// What the service is doing, asked again every few seconds while somebody looks.

import { el, fill } from "../dom.js";
import { askJson } from "../service.js";
import { words } from "../words.js";

const EVERY_MS = 5000;

/** `{element, start(), stop()}` */
export function createState() {
  const values = Object.fromEntries(
    Object.keys(words.about.stateRows).map((name) => [name, el("dd", {}, "…")]),
  );
  const fault = el("p", { class: "fault", role: "status" });
  const element = el(
    "div",
    {},
    el(
      "dl",
      { class: "about-facts" },
      ...Object.entries(words.about.stateRows).flatMap(([name, title]) =>
        [el("dt", {}, title), values[name]]),
    ),
    fault,
  );
  let looking = null;
  let last = null;

  async function ask() {
    try {
      const state = await askJson("/state");
      const rate = rateOf(last, state);
      last = state;
      const shown = {
        model: state.model,
        device: words.about.device(state.provider),
        version: state.version,
        processes: words.about.processes(state),
        uptime: words.about.uptime(state.uptime_seconds),
        requests: words.about.requests(state),
        images: String(state.images),
        rate: words.about.rate(rate),
      };
      for (const [name, text] of Object.entries(shown)) fill(values[name], text);
      fill(fault);
    } catch (problem) {
      fill(fault, words.about.stale(problem.code ? problem : { code: "unexpected" }));
    }
  }

  async function watch(signal) {
    while (!signal.aborted) {
      if (!document.hidden) await ask();
      await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    }
  }

  return {
    element,
    start() {
      if (looking) return;
      looking = new AbortController();
      watch(looking.signal);
    },
    stop() {
      looking?.abort();
      looking = null;
      last = null;
    },
  };
}

/** Images a second between two states of the same service, null where there are not two. */
function rateOf(before, now) {
  if (!before || now.uptime_seconds <= before.uptime_seconds) return null;
  return (now.images - before.images) / (now.uptime_seconds - before.uptime_seconds);
}
