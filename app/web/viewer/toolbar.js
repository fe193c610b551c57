// The tools of one viewer, or of several at once.

import { el } from "../dom.js";
import { words } from "../words.js";
import { icon } from "./icons.js";
import { placeIn } from "./linked.js";

const ZOOM = 1.25;
const STEPS = { ArrowRight: 1, ArrowLeft: -1 };

let toolbars = 0;

/** A toolbar that steers `viewers`, of which there is at least one. */
export function createToolbar(viewers) {
  toolbars += 1;
  const all = (act) => () => {
    viewers.forEach(act);
    show(viewers[0]);
  };
  let tool = "window";
  const choose = (next) => all((viewer) => {
    tool = next;
    viewer.setTool(next);
  });
  const tools = { window: button("window", choose("window")), pan: button("pan", choose("pan")) };
  const invert = button("invert", () => {
    const next = !viewers[0].getState().inverted;
    all((viewer) => viewer.setInverted(next))();
  });
  const heat = button("heatmap", () => {
    const isShown = viewers[0].getState().opacity > 0;
    all((viewer) => viewer.showHeatmap(!isShown))();
  });
  const level = slider("level", { min: 0, max: 1 }, changeWindow);
  const width = slider("width", { min: 0.02, max: 1.5 }, changeWindow);
  const opacity = slider("opacity", { min: 0, max: 1 }, () =>
    all((viewer) => viewer.setOpacity(opacity.value()))());
  const buttons = [
    tools.window,
    tools.pan,
    button("zoomOut", () => zoom(1 / ZOOM)),
    button("zoomIn", () => zoom(ZOOM)),
    button("fit", all((viewer) => viewer.fit())),
    button("actualSize", all((viewer) => viewer.actualSize())),
    invert,
    heat,
    button("reset", all((viewer) => viewer.reset())),
  ];
  rove(buttons);

  /** One is zoomed, and the others show the same: a millimetre as long in each. */
  function zoom(factor) {
    const first = viewers.find((viewer) => viewer.isSeen());
    first?.zoomBy(factor);
    if (first) viewers.forEach((other) => other !== first && other.setState(placeIn(first, other)));
  }

  function changeWindow() {
    const half = width.value() / 2;
    const window = { low: level.value() - half, high: level.value() + half };
    all((viewer) => viewer.setState({ window }))();
  }

  /** Show what is set in `viewer`. */
  function show(viewer) {
    const { window, inverted, opacity: shown } = viewer.getState();
    for (const [name, each] of Object.entries(tools)) press(each, name === tool);
    press(invert, inverted);
    press(heat, shown > 0);
    level.show((window.low + window.high) / 2);
    width.show(window.high - window.low);
    opacity.show(shown);
  }

  for (const viewer of viewers) {
    for (const event of ["window", "opacity"]) viewer.on(event, () => show(viewer));
  }
  show(viewers[0]);
  return el(
    "div",
    { class: "viewer-toolbar", role: "toolbar", "aria-label": words.viewer.toolbar },
    el("div", { class: "viewer-tools" }, ...buttons.slice(0, 2)),
    el("div", { class: "viewer-tools" }, ...buttons.slice(2, 6)),
    el("div", { class: "viewer-tools" }, ...buttons.slice(6)),
    ...[level, width, opacity].map(({ element }) => element),
  );
}

function button(name, click) {
  const { label, key } = words.viewer.tools[name];
  return el("button", {
    type: "button", class: "viewer-tool", data: { tool: name }, "aria-label": label,
    title: key ? `${label} (${key})` : label, on: { click },
  }, name === "actualSize" ? words.viewer.oneToOne : icon(name));
}

const press = (tool, isPressed) => tool.setAttribute("aria-pressed", String(isPressed));

/** A slider of parts; those of a toolbar keep their arrow keys, and so their own place for Tab. */
function slider(name, { min, max }, input) {
  const id = `viewer-${name}-${toolbars}`;
  const field = el("input", { type: "range", id, min, max, step: 0.01, on: { input: change } });
  const element = el(
    "div", { class: "viewer-slider" }, el("label", { for: id }, words.viewer.sliders[name]), field,
  );
  const say = () => field.setAttribute("aria-valuetext", words.numbers.percent(field.value));

  function change() {
    say();
    input();
  }

  return {
    element,
    value: () => Number(field.value),
    show(value) {
      field.value = value;
      say();
    },
  };
}

/** One place for Tab among `buttons`, arrows and Home and End between them. */
function rove(buttons) {
  const go = (event) => {
    const last = buttons.length - 1;
    const from = buttons.indexOf(event.currentTarget);
    const to = { Home: 0, End: last }[event.key] ??
      (STEPS[event.key] && (from + STEPS[event.key] + buttons.length) % buttons.length);
    if (to === undefined) return;
    event.preventDefault();
    buttons[to].focus();
  };
  const stay = ({ currentTarget }) =>
    buttons.forEach((each) => (each.tabIndex = each === currentTarget ? 0 : -1));
  buttons.forEach((each, place) => {
    each.tabIndex = place ? -1 : 0;
    each.addEventListener("keydown", go);
    each.addEventListener("focus", stay);
  });
}
