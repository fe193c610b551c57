// What was read, on the screen: the images of a breast in time order, and beside them the result.

import { el, fill } from "./dom.js";
import { bandAt, timePlot } from "./plots/time.js";
import { asProblem, askPixels } from "./service.js";
import { createTakeaway } from "./takeaway.js";
import { createLegend } from "./viewer/legend.js";
import { coarseRasterOf, rasterOf } from "./viewer/raster.js";
import { createToolbar, createViewer, link } from "./viewer/viewer.js";
import { words } from "./words.js";

const LOADED_AT_ONCE = 2;
const COARSE_AFTER = 500; // ms without all pixels, before fewer are asked for
const COARSE = 2; // times halved

/**
 * Show a reading (see reading.js) in `host`; `model` is `{model, figures}`, `points` the operating
 * points. Answers `{destroy()}`.
 */
export function showResult(host, reading, model, points) {
  const panel = el("div", { class: "breast", tabIndex: -1 });
  const one = el("p", { class: "on-paper" }, words.result.onPaper);
  let shown = null;
  let others = []; // the breasts that are not shown, for the print
  const tabs = reading.breasts.map((breast, place) =>
    el("button", {
      type: "button", role: "tab", id: `breast-${place}`, "aria-controls": "breast-panel",
      on: { click: () => choose(place), keydown: turn },
    }, words.result.breast(breast.laterality)),
  );
  Object.assign(panel, { id: "breast-panel" });

  function choose(place) {
    destroy();
    tabs.forEach((tab, each) => {
      tab.setAttribute("aria-selected", String(each === place));
      tab.tabIndex = each === place ? 0 : -1;
    });
    if (tabs.length > 1) {
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", `breast-${place}`);
    }
    shown = showBreast(panel, reading.breasts[place], model, points, { print: () => print(place) });
  }

  /** Print all breasts, of which the one at `place` is shown. */
  async function print(place) {
    if (!others.length) {
      others = reading.breasts.map((breast, each) =>
        each === place ? shown : putOnPaper(panel, each < place, breast, model, points));
      one.hidden = true;
    }
    const mine = others;
    await Promise.all(mine.map(({ ready }) => ready));
    if (mine === others) window.print();
  }

  function destroy() {
    shown?.destroy();
    others.filter((other) => other !== shown).forEach((other) => other.destroy());
    others = [];
    one.hidden = false;
  }

  function turn(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = (tabs.indexOf(event.currentTarget) + step + tabs.length) % tabs.length;
    tabs[next].focus();
    choose(next);
  }

  fill(
    host,
    tabs.length > 1
      ? el("div", { class: "tabs", role: "tablist", "aria-label": words.result.breasts }, ...tabs)
      : null,
    ignoredNote(reading.ignored),
    tabs.length > 1 ? one : null,
    panel,
  );
  choose(0);
  return { destroy };
}

/** A breast as `showBreast` shows it, before or after `panel` and on paper only. */
function putOnPaper(panel, isBefore, breast, model, points) {
  const host = el("div", { class: "breast is-paper", inert: true });
  if (isBefore) panel.before(host);
  else panel.parentElement.append(host);
  const { ready, destroy } = showBreast(host, breast, model, points);
  return {
    ready,
    destroy() {
      destroy();
      host.remove();
    },
  };
}

function ignoredNote(ignored) {
  if (!ignored.length) return null;
  return el(
    "details",
    { class: "note ignored" },
    el("summary", {}, words.result.ignored(ignored.length)),
    el("ul", {}, ...ignored.map(({ file, code }) =>
      el("li", {}, el("bdi", {}, file.name), `: ${words.result.leftOut(code)}`))),
  );
}

/**
 * Show a breast in `host`, with what it is looked at and taken away with where there is a way to
 * `print`, on paper otherwise. Answers `{ready, destroy()}`; `ready` once its pictures are drawn.
 */
function showBreast(host, breast, { model, figures }, points, { print = null } = {}) {
  const isPaper = !print;
  const stop = new AbortController();
  const frames = framesOf(breast);
  const viewers = frames.map(({ viewer }) => viewer);
  const unlink = viewers.length > 1 ? link(viewers) : () => {};
  const columns = columnsOf(breast, frames);
  const grid = el("div", { class: "exams" }, ...columns);
  const reading = el("section", { class: "reading", "aria-label": words.result.probability });
  fill(
    host,
    el("p", { class: "research of-page" }, words.page.research),
    el(
      "div",
      { class: "look" },
      isPaper ? null : createToolbar(viewers),
      columns.length > 1 && !isPaper ? waysTo(columns, breast) : null,
      grid,
    ),
    el(
      "aside",
      { class: "side" },
      reading,
      ...warningsOf(breast),
      createLegend(breast.exams.at(-1).images[0].heatmap),
      ...(isPaper ? [] : [
        el("h3", {}, words.takeaway.title),
        createTakeaway(breast, () => points.chosen().name, print, stop.signal),
      ]),
      el("p", { class: "muted small" }, words.result.by(model, breast.answer)),
    ),
  );
  const write = () => {
    const result = { breast, point: points.chosen(), points, figures, isPaper };
    fill(reading, ...readingOf(result));
    frames.forEach((frame) => printResult(frame, result));
  };
  const forget = points.onChange(write);
  write();
  const ready = load(frames, stop.signal, isPaper).then(painted);
  grid.scrollLeft = grid.scrollWidth; // the newest exam is looked at first
  const fit = new ResizeObserver(() =>
    grid.classList.toggle("is-wide", grid.scrollWidth > grid.clientWidth + 1));
  fit.observe(grid);
  return {
    ready,
    destroy() {
      stop.abort();
      forget();
      unlink();
      fit.disconnect();
      viewers.forEach((viewer) => viewer.destroy());
    },
  };
}

/** A viewer for each image, oldest exam first: `[{viewer, exam, image, heatmap, file, state}]`. */
function framesOf(breast) {
  return breast.exams.flatMap((exam, place) =>
    exam.images.map((seen) => {
      const element = el("figure", { class: "frame" });
      const name = words.result.frame(seen.image, exam.date, breast.laterality);
      const viewer = createViewer(element, { name });
      const state = el("p", { class: "frame-state" }, words.result.loading);
      element.append(state);
      if (imagesOf(breast) > 1) element.append(aloneButton(element, name));
      return { ...seen, element, viewer, exam, place, state, name };
    }),
  );
}

const imagesOf = ({ exams }) => exams.reduce((sum, { images }) => sum + images.length, 0);

/** Gives an image the place of all, and back. */
function aloneButton(frame, name) {
  const button = el("button", {
    type: "button", class: "alone", "aria-label": words.result.aloneAbout(name), on: { click },
  }, words.result.alone);
  function click() {
    const isAlone = frame.classList.toggle("is-alone");
    // What is read out is what is seen (WCAG 2.5.3)
    button.setAttribute("aria-label",
      isAlone ? words.result.together : words.result.aloneAbout(name));
    fill(button, isAlone ? words.result.together : words.result.alone);
  }
  return button;
}

function columnsOf(breast, frames) {
  return breast.exams.map((exam) => {
    const ofExam = frames.filter((frame) => frame.exam === exam);
    return el(
      "section",
      { class: "exam", "aria-label": words.result.exam(exam.date) },
      ...ofExam.map((frame) => frame.element),
    );
  });
}

/** Buttons that bring an exam into sight, where not all of them are. */
function waysTo(columns, { exams }) {
  const buttons = columns.map((column, place) =>
    el("button", {
      type: "button",
      on: { click: () => column.scrollIntoView({ block: "nearest", inline: "start" }) },
    }, exams[place].date));
  return el("nav", { class: "ways", "aria-label": words.result.ways }, ...buttons);
}

/** Resolves when each frame has its picture, or says why it has none. */
async function load(frames, signal, isPaper = false) {
  // The newest exam first: that is what is looked at
  const waiting = [...frames].reverse();
  const one = async () => {
    for (let frame = waiting.shift(); frame && !signal.aborted; frame = waiting.shift()) {
      try {
        await frame.viewer.setHeatmap(frame.heatmap);
        if (isPaper) {
          frame.viewer.show(await coarseOf(frame, signal));
        } else {
          const coarse = showCoarse(frame, signal);
          frame.viewer.show(rasterOf(await askPixels(frame.file, { signal }).finally(coarse.end)));
        }
        frame.state.remove();
      } catch (error) {
        if (error.name === "AbortError") return;
        fill(frame.state, words.problem(asProblem(error)), againButton(frame, signal));
      }
    }
  };
  await Promise.all(Array.from({ length: LOADED_AT_ONCE }, one));
}

/** What was shown last is drawn: a frame of the screen has passed since. */
const painted = () =>
  new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));

/** Fewer pixels of an image: all that paper has room for. */
async function coarseOf({ file, image }, signal) {
  const longSide = Math.ceil(Math.max(image.rows, image.columns) / 2 ** COARSE);
  return coarseRasterOf(await askPixels(file, { longSide, signal }), COARSE);
}

/** Show fewer pixels where all of them take long; `end()` once they are there, or will not come. */
function showCoarse(frame, signal) {
  const { viewer, state } = frame;
  const own = new AbortController();
  const either = AbortSignal.any([signal, own.signal]);
  const timer = setTimeout(async () => {
    try {
      const seen = await coarseOf(frame, either);
      if (either.aborted) return;
      viewer.show(seen);
      state.classList.add("is-coarse");
      fill(state, words.result.coarse);
    } catch {
      // the picture itself says what is wrong
    }
  }, COARSE_AFTER);
  return {
    end() {
      clearTimeout(timer);
      own.abort();
    },
  };
}

function againButton(frame, signal) {
  const click = () => {
    fill(frame.state, words.result.loading);
    load([frame], signal);
  };
  return el("button", { type: "button", on: { click } }, words.read.again);
}

/** The result on the picture, as the exam was read when it was the last. */
function printResult({ viewer, image, exam }, { breast, point }) {
  const last = exam === breast.exams.at(-1);
  const isCalled = exam.after >= point.threshold;
  fill(
    viewer.corner("top-left"),
    el("span", { class: "print-name" },
      ...words.result.frameParts(image, exam.date, breast.laterality).flatMap((part) => [
        el("span", {}, part), " ",
      ])),
    image.inverted ? el("span", {}, words.result.inverted) : null,
  );
  fill(
    viewer.corner("top-right"),
    el(
      "strong",
      { class: `print-result ${isCalled ? "is-positive" : "is-negative"}` },
      el("span", {}, words.classes(breast.positiveClass)),
      " ",
      el("span", {}, words.numbers.percentFine(exam.after)),
    ),
    el("span", {}, last ? words.result.called(isCalled, point) : words.result.soFar),
  );
}

function readingOf({ breast, point, points, figures, isPaper }) {
  const { probability, positiveClass } = breast;
  const isCalled = probability >= point.threshold;
  const band = bandAt(figures, probability);
  return [
    el("h2", {}, words.result.headline(breast.laterality)),
    el(
      "p",
      { class: `probability ${isCalled ? "is-positive" : "is-negative"}` },
      el("strong", {}, words.numbers.percentFine(probability)),
      el("span", {}, ` ${words.classes(positiveClass)}`),
    ),
    el("p", { class: "verdict" }, words.result.verdict(isCalled, point)),
    el("p", { class: "muted interval" }, intervalOf(figures, band)),
    isPaper ? el("p", { class: "muted" }, words.result.meaning(point)) : choiceOf(points, point),
    ...overTime(breast, point, figures),
  ];
}

function intervalOf(figures, band) {
  if (!figures) return words.result.noFigures;
  const said = band ? words.result.band(band) : words.result.noBand;
  return `${said} ${words.result.prevalence(figures.prevalence)}`;
}

function choiceOf(points, point) {
  const select = el(
    "select",
    { id: "operating-point", on: { change: (event) => choose(event.target.value) } },
    ...points.points.map(({ name }) =>
      el("option", { value: name, selected: name === point.name }, words.points(name))),
  );
  function choose(name) {
    points.choose(name);
    document.getElementById("operating-point")?.focus(); // it was made anew
  }
  return el(
    "div",
    { class: "operating" },
    el("label", { for: "operating-point" }, words.result.point),
    select,
    el("p", { class: "muted" }, words.result.meaning(point)),
  );
}

function overTime(breast, point, figures) {
  if (breast.exams.length < 2) return [];
  const host = el("div", { class: "time" });
  timePlot(host, {
    exams: breast.exams.map(({ date, after }) => ({
      date, probability: after, ...(bandAt(figures, after) ?? { low: null, high: null }),
    })),
    before: breast.before,
    threshold: point.threshold,
    thresholdName: words.points(point.name),
  });
  return [
    el("h3", {}, words.result.overTime),
    host,
    el(
      "table",
      { class: "moves" },
      el("caption", { class: "unseen" }, words.result.moves),
      el("thead", {}, el("tr", {},
        ...words.result.columns.map((name) => el("th", { scope: "col" }, name)))),
      el(
        "tbody",
        {},
        ...breast.exams.map((exam) =>
          el(
            "tr",
            {},
            el("th", { scope: "row" }, exam.date),
            el("td", {}, exam.days ? words.result.days(exam.days) : ""),
            el("td", {}, words.numbers.percentFine(exam.after)),
            el("td", { class: exam.change > 0 ? "is-up" : "is-down" },
              words.numbers.points(exam.change)),
          )),
      ),
    ),
  ];
}

function warningsOf({ warnings }) {
  if (!warnings.length) return [];
  return [
    el(
      "section",
      { class: "note warning", "aria-label": words.result.warnings },
      el("h3", {}, words.result.warnings),
      el("ul", {}, ...warnings.map((warning) =>
        el("li", { data: { code: warning.code } }, words.warning(warning)))),
    ),
  ];
}
