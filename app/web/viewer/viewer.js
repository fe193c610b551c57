// A mammogram to be looked at: at full resolution, with a window of grey values and a heatmap.

import { el } from "../dom.js";
import { words } from "../words.js";
import { draw } from "./draw.js";
import { createPainter } from "./frames.js";
import { listen } from "./gestures.js";
import { drawHeatmap, heatmapOf } from "./heatmap.js";
import { keyMeaning } from "./keys.js";
import { fitted, isSame, moved, originOf, pointAt, within, zoomed } from "./place.js";
import { createReadout } from "./readout.js";
import { createSurface } from "./surface.js";
import { changed, greysOf, partsOf, windowTable } from "./window.js";

export { link } from "./linked.js";
export { createToolbar } from "./toolbar.js";

/** Every key of a viewer: `[keys, what they do]`. */
export const { shortcuts } = words.viewer;

const OPACITY = 0.55; // of the largest value, as in the service's own overlays
const WHOLE = { low: 0, high: 1 };
const DRAG = 400; // CSS pixels that change the window by the raster's whole range
const EVENTS = ["view", "window", "opacity"];

let viewers = 0;

/**
 * Make a viewer that fills `host`, a positioned element; `name` says which image it shows.
 *
 * `on(event, listener)` tells what a person does on the viewer: "view" (zoom, place), "window"
 * (also inversion) and "opacity" (of the heatmap); it answers a function that ends it. Calls of the
 * functions here are not told. A state is `{centre, scale, window, inverted, opacity}`: the point
 * in the middle in parts of the image's sides, the scale relative to the whole image fitted in, the
 * window in parts of the raster's own range, whether black and white are exchanged against how the
 * image is meant to be seen, and the opacity of the heatmap's largest value.
 */
export function createViewer(host, { name }) {
  viewers += 1;
  const id = `viewer-about-${viewers}`;
  const about = el("p", { class: "viewer-unseen", id }, words.viewer.about);
  const canvas = el("canvas", {
    class: "viewer-canvas", tabIndex: 0, role: "application", "aria-label": name,
    "aria-describedby": id,
  });
  const readout = createReadout();
  const element = el("div", { class: "viewer" }, canvas, about, ...readout.elements);
  const surface = createSurface(canvas);
  const painter = createPainter(paint);
  const listeners = Object.fromEntries(EVENTS.map((event) => [event, new Set()]));
  const stop = new AbortController();
  let raster = null;
  let heatmap = null;
  let asked = null; // the heatmap that is to be shown
  let table = null;
  let isTableOld = true;
  let place = { x: 0, y: 0, scale: 1 };
  let isFitted = true;
  let grey = WHOLE;
  let inverted = false;
  let opacity = OPACITY;
  let faded = OPACITY; // what the heatmap comes back with
  let tool = "window";
  let pointer = null; // [x, y] of what hovers over the canvas, in CSS pixels

  const density = () => canvas.width / canvas.clientWidth || 1;
  const inPixels = (at) => at.map((each) => each * density());
  const perMm = () => raster?.spacing ? place.scale / density() / raster.spacing[1] : null;
  const middle = () => [canvas.width / 2, canvas.height / 2];

  function paint(isCoarse) {
    if (!raster || !canvas.width || !canvas.height) return;
    if (isTableOld) fillTable();
    const origin = originOf(place, canvas);
    surface.paint(isCoarse, (pixels, size, share) => {
      const at = { origin: origin.map((each) => each * share), scale: place.scale * share };
      draw(pixels, size, raster, at, table);
    });
    if (heatmap && opacity) {
      drawHeatmap(surface.context, heatmap, { origin, scale: place.scale }, {
        opacity, density: density(),
      });
    }
  }

  function put(next) {
    place = next;
    isFitted = isSame(place, fitted(raster, canvas));
    readSettings();
    readPointer();
    painter.soon();
  }

  function fillTable() {
    const turned = inverted !== raster.inverted;
    const bits = 8 * raster.levels.at(-1).words.BYTES_PER_ELEMENT;
    table = windowTable({ ...greysOf(raster, grey), turned }, bits, table);
    isTableOld = false;
  }

  function setGrey(next) {
    grey = next;
    isTableOld = true;
    if (!raster) return;
    readSettings();
    painter.soon();
  }

  function setOpacity(next) {
    opacity = Math.min(1, Math.max(0, next));
    if (opacity) faded = opacity;
    painter.soon();
  }

  function readSettings() {
    const window = greysOf(raster, grey);
    readout.settings({ window, zoom: place.scale, isTurned: inverted });
    readout.scale(perMm(), canvas.clientWidth);
  }

  function readPointer() {
    const point = raster && pointer && pointAt(place, canvas, inPixels(pointer));
    readout.pointer(point && greyAt(raster, point.map(Math.floor)));
  }

  function resize(width, height) {
    Object.assign(canvas, { width, height });
    if (!raster || !width || !height) return;
    if (isFitted || !place.scale) place = fitted(raster, canvas);
    readSettings();
    painter.now(); // the canvas was emptied
  }

  function zoomTo(scale, at = middle()) {
    if (raster && canvas.width) put(zoomed(place, raster, canvas, scale, at));
  }

  const showHeatmap = (isShown) => setOpacity(isShown ? faded : 0);
  const zoomBy = (factor, at) => zoomTo(place.scale * factor, at && inPixels(at));
  const actualSize = () => raster && put({ ...place, scale: 1 });
  const fit = () => raster && put(fitted(raster, canvas));

  function setInverted(next) {
    inverted = next;
    setGrey(grey);
  }

  function reset() {
    inverted = false;
    setGrey(WHOLE);
    setOpacity(OPACITY);
    fit();
  }

  function tell(event) {
    const { window, inverted: isTurned } = getState();
    const { low, high } = greysOf(raster, window);
    readout.say({
      view: () => words.viewer.saidZoom(place.scale),
      window: () => words.viewer.saidWindow(high - low, (high + low) / 2, isTurned),
      opacity: () => words.viewer.saidOpacity(opacity),
    }[event]());
    listeners[event].forEach((listener) => listener());
  }

  /** What a person does: told to those who listen. */
  const does = (event, act) => (...given) => {
    if (!raster) return;
    act(...given);
    tell(event);
  };

  const meant = {
    pan: does("view", (movement) => put(moved(place, raster, inPixels(movement)))),
    zoom: does("view", zoomBy),
    fit: does("view", fit),
    actualSize: does("view", actualSize),
    toggle: does("view", (at) => (isFitted ? zoomTo(1, inPixels(at)) : fit())),
    // To the right it gets wider, and upwards brighter
    window: does("window", ([across, down]) => {
      const darker = inverted === raster.inverted ? down : -down;
      setGrey(changed(grey, across / DRAG, darker / DRAG));
    }),
    invert: does("window", () => setInverted(!inverted)),
    toggleHeatmap: does("opacity", () => showHeatmap(!opacity)),
    fade: does("opacity", (change) => setOpacity(Math.round((opacity + change) * 100) / 100)),
    reset: does("view", () => {
      reset();
      ["window", "opacity"].forEach(tell);
    }),
    begin: (means) => (canvas.dataset.drag = means),
    end: () => delete canvas.dataset.drag,
    hover(at) {
      pointer = at;
      readPointer();
    },
  };

  function getState() {
    const centre = raster ? [place.x / raster.columns, place.y / raster.rows] : [0.5, 0.5];
    const scale = raster ? place.scale / fitted(raster, canvas).scale : 1;
    return { centre, scale, window: grey, inverted, opacity };
  }

  /** Any part of a state; before there is a raster, no place. `perMm` stands for a scale. */
  function setState(state) {
    const next = { ...getState(), ...state };
    if (state.opacity !== undefined) setOpacity(next.opacity);
    if (state.inverted !== undefined) setInverted(next.inverted);
    if (state.window) setGrey(next.window);
    if (!raster || !(state.centre || state.scale || state.perMm)) return;
    const [x, y] = [next.centre[0] * raster.columns, next.centre[1] * raster.rows];
    const scale = state.perMm
      ? state.perMm * density() * raster.spacing[1]
      : next.scale * fitted(raster, canvas).scale;
    put(within(raster, { x, y, scale }));
  }

  function setTool(next) {
    tool = next;
    canvas.dataset.tool = tool;
  }

  /** Take the `heatmap` of an answer, or null; resolves when it is ready to be drawn. */
  async function setHeatmap(body) {
    asked = body;
    const ready = body && (await heatmapOf(body));
    if (asked !== body) return; // another was asked for meanwhile
    heatmap = ready;
    painter.soon();
  }

  function keyDown(event) {
    const meaning = keyMeaning(event);
    if (!meaning) return;
    event.preventDefault();
    meaning(meant);
  }

  canvas.addEventListener("keydown", keyDown, { signal: stop.signal });
  listen(canvas, () => tool, meant, stop.signal);
  setTool(tool);
  host.append(element);
  const size = observeSize(canvas, resize);

  return {
    element,
    /** Show a raster; a finer one of the same image lies where the one before it did. */
    show(next) {
      const isFiner = raster?.rows === next.rows && raster.columns === next.columns;
      raster = next;
      setGrey(grey);
      if (!isFiner) fit();
    },
    setHeatmap,
    setOpacity,
    /** Hide the heatmap, or show it with the opacity that it last had. */
    showHeatmap,
    setInverted,
    /** In grey values of the raster that is shown. */
    setWindow: (window) => setGrey(partsOf(raster, window)),
    setTool,
    fit,
    /** One pixel of the image for each of the screen. */
    actualSize,
    /** `at` [x, y], in CSS pixels, stays where it is. */
    zoomBy,
    reset,
    getState,
    setState,
    /** CSS pixels that show a millimetre, null where the image does not say its spacing. */
    perMm,
    /** Where the breast is, as parts of the image's sides; the whole image without a heatmap. */
    breast() {
      if (!raster || !heatmap?.breast) return { left: 0, top: 0, width: 1, height: 1 };
      const { left, top, width, height } = heatmap.breast;
      const { rows, columns } = raster;
      return {
        left: left / columns, top: top / rows, width: width / columns, height: height / rows,
      };
    },
    /** Whether there is a picture, and room for it. */
    isSeen: () => Boolean(raster && canvas.width),
    corner: readout.corner,
    on(event, listener) {
      listeners[event].add(listener);
      return () => listeners[event].delete(listener);
    },
    /** What is seen, without the corners, as PNG. */
    toBlob() {
      painter.now();
      return new Promise((resolve) => canvas.toBlob(resolve));
    },
    destroy() {
      stop.abort();
      size.disconnect();
      painter.stop();
      readout.stop();
      surface.free();
      element.remove();
      raster = heatmap = asked = table = null;
    },
  };
}

/** What is known of a pixel; null outside of the image. */
function greyAt({ levels: [level], rows, columns, spacing }, [column, row]) {
  if (!level || column < 0 || row < 0 || column >= columns || row >= rows) return null;
  return { column, row, grey: level.words[row * columns + column], spacing };
}

/** Call `resized(width, height)` in pixels of the screen, now and whenever they change. */
function observeSize(element, resized) {
  const observer = new ResizeObserver(([entry]) => {
    const exact = entry.devicePixelContentBoxSize?.[0];
    const { width, height } = entry.contentRect;
    const about = [width, height].map((each) => Math.round(each * devicePixelRatio));
    // A browser that plays another screen still tells the pixels of its own
    if (exact && Math.abs(exact.inlineSize - about[0]) <= 1) {
      resized(exact.inlineSize, exact.blockSize);
    } else {
      resized(...about);
    }
  });
  try {
    observer.observe(element, { box: "device-pixel-content-box" });
  } catch {
    observer.observe(element); // Safari
  }
  return observer;
}
