// The model in service: what it is for, how good it is, its card, and what the service is doing.

import { el, fill } from "../dom.js";
import { askJson, askText } from "../service.js";
import { words } from "../words.js";
import { rocPlot } from "./roc.js";
import { reliabilityPlot } from "./reliability.js";
import { createState } from "./state.js";
import { subgroupTable } from "./subgroups.js";

/** Fill `host`. Nothing is asked of the service before `show`, and nothing again after `hide`. */
export function createAbout(host) {
  const waiting = el("p", { role: "status" }, words.about.loading);
  const content = el("div", { class: "about-content" }, waiting);
  const state = createState();
  fill(host, content);
  let loaded = null;
  return {
    show() {
      state.start();
      loaded ??= load().catch((problem) => {
        loaded = null; // the next visit tries again
        const said = problem.code ? problem : { code: "unexpected" };
        fill(content, el("p", { class: "fault", role: "alert" }, words.problem(said)));
        if (!problem.code) throw problem; // a fault of this page, not a refusal
      });
    },
    hide: () => state.stop(),
  };

  async function load() {
    const [model] = (await askJson("/v1/models")).models;
    const address = `/v1/models/${model.name}/${model.version}`;
    const [figures, card] = await Promise.all([
      askJson(`${address}/figures`).catch((problem) => {
        if (problem.code === "not_found") return null;
        throw problem;
      }),
      askText(`${address}/card`),
    ]);
    const { cardElement } = await import("./card.js");
    fill(
      content,
      headline(model, figures, state.element),
      ...(figures ? measured(model, figures) : [el("p", { class: "note" }, words.about.noFigures)]),
      section("card", words.about.card, cardElement(card)),
    );
  }
}

function headline(model, figures, state) {
  return el(
    "div",
    { class: "about-head" },
    el(
      "section",
      { "aria-labelledby": "about-model" },
      el("h2", { id: "about-model" }, words.about.name(model)),
      el("p", { class: "about-use" }, model.intended_use),
      el(
        "dl",
        { class: "about-facts" },
        ...fact(words.about.trainedOn,
          model.trained_on ? words.about.trained(model.trained_on) : words.about.unsaid),
        ...fact(words.about.terms, model.terms ?? words.about.unsaid),
        ...(figures
          ? fact(words.about.measuredOn, figures.measured_on, el("span", { class: "muted" },
            ` (${words.about.precision(figures)}). ${figures.note}`))
          : []),
        ...fact("SHA-256", el(
          "details",
          { class: "about-hash" },
          el("summary", {}, el("code", {}, `${model.sha256.slice(0, 12)}…`)),
          el("code", {}, model.sha256),
          el("p", { class: "muted" }, words.about.hash),
        )),
      ),
    ),
    el(
      "section",
      { class: "about-state", "aria-labelledby": "about-state" },
      el("h2", { id: "about-state" }, words.about.state),
      state,
    ),
  );
}

/** What was measured: the operating points, one of which the ROC plot marks, and the plots. */
function measured(model, figures) {
  const roc = el("div", {});
  const points = figures.operating_points;
  const choose = (point) => rocPlot(roc, figures, point);
  const chosen =
    points.find(({ name }) => name === model.default_operating_point) ?? points[0];
  choose(chosen);
  return [
    section("points", words.about.points, el("p", { class: "muted" }, words.about.pointsAbout),
      choiceOf(points, chosen, choose)),
    el(
      "div",
      { class: "about-plots" },
      section("roc", words.about.roc, el("p", { class: "muted" }, words.about.rocAbout), roc),
      section(
        "reliability", words.about.reliability,
        el("p", { class: "muted" }, words.about.reliabilityAbout(figures.reliability)),
        reliabilityPlot(figures),
        el("p", { class: "muted" }, words.about.prevalence(figures.prevalence)),
      ),
    ),
    ...(figures.subgroups.length
      ? [section("subgroups", words.about.subgroups,
        el("p", { class: "muted" }, words.about.subgroupsAbout), subgroupTable(figures))]
      : []),
  ];
}

function choiceOf(points, chosen, choose) {
  return el(
    "fieldset",
    { class: "about-points" },
    el("legend", { class: "unseen" }, words.about.points),
    ...points.map((point) =>
      el(
        "label",
        {},
        el("input", {
          type: "radio", name: "about-point", value: point.name, checked: point === chosen,
          on: { change: () => choose(point) },
        }),
        el("span", { class: "about-point" },
          el("strong", {}, words.points(point.name)),
          el("span", { class: "muted" }, ` ${words.about.pointAt(point.threshold)}`),
          el("br"),
          words.about.point(point)),
      )),
  );
}

function section(name, title, ...children) {
  const id = `about-${name}`;
  return el(
    "section",
    { class: `about-section ${id}`, "aria-labelledby": id }, el("h2", { id }, title), ...children,
  );
}

const fact = (name, ...value) => [el("dt", {}, name), el("dd", {}, ...value)];
