// The page from its start: who is there, then reading or the model.

import { el, fill } from "./dom.js";
import { showLogin } from "./login.js";
import { askModel, operatingPoints } from "./operating.js";
import { read } from "./reading.js";
import { logOut, session } from "./session.js";
import { Problem, sessionEnd } from "./service.js";
import { createShelf } from "./shelf.js";
import { applyTheme, turnTheme } from "./theme.js";
import { words } from "./words.js";

// What the quality gate refuses, and `gate=warn` lets through
const OF_THE_GATE = [
  "blank_image", "image_too_small", "colour_image", "breast_cut_off", "saturated_image",
  "not_a_mammogram", "unfamiliar_image", "nothing_to_read",
];

const BELOW = "(max-width: 760px)"; // where the result lies below the shelf

applyTheme();
document.title = words.page.title;
const app = el("div", { id: "app" });
document.body.append(app);
await begin();

async function begin() {
  try {
    const state = await session();
    const isIn = state.access === "open" || state.user;
    showPage(isIn ? state : await showLogin(app, state));
  } catch (problem) {
    fill(app, el("main", { class: "login" }, el("p", { role: "alert" }, words.problem(problem))));
    throw problem;
  }
}

async function showPage(state) {
  const model = askModel();
  const views = { read: readView(model), model: null };
  const main = el("main", { id: "main", tabIndex: -1 });
  const links = Object.keys(views).map((name) =>
    el("a", { href: `#${name}`, data: { view: name } }, words.nav[name]),
  );
  const chip = el("span", { class: "chip", title: words.page.served });
  const help = el("button", { type: "button", on: { click: openHelp } }, words.help.open);
  const theme = el("button", { type: "button", on: { click: turn } });
  fill(
    app,
    el("a", { class: "skip", href: "#main", on: { click: skip } }, words.page.skip),
    el(
      "header",
      { class: "bar" },
      el("h1", {}, words.page.title),
      el("nav", { "aria-label": words.nav.label }, ...links),
      chip,
      el("span", { class: "spring" }),
      state.access === "open" ? el("span", { class: "chip", title: words.login.openAbout },
        words.login.open) : el("span", { class: "user" }, state.user),
      theme,
      help,
      state.access === "open" ? null : el("button", { type: "button", on: { click: leave } },
        words.login.leave),
    ),
    el("aside", { class: "research", "aria-label": words.page.notice }, words.page.research),
    main,
  );
  nameTheme();
  window.addEventListener("hashchange", show);
  document.addEventListener("keydown", keys);
  await show();
  model.then(
    ({ model }) => fill(chip, words.page.model(model)),
    (problem) => fill(chip, words.problem(problem)),
  );

  async function show() {
    const name = location.hash === "#model" ? "model" : "read";
    links.forEach((link) => {
      if (link.dataset.view === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    });
    if (name === "model" && !views.model) {
      const { createAbout } = await import("./about/about.js");
      const host = el("div", { class: "about" });
      views.model = { element: host, ...createAbout(host) };
    }
    if (name === "read") views.model?.hide();
    else views.model.show();
    fill(main, views[name].element);
  }

  function turn() {
    turnTheme();
    nameTheme();
  }

  function nameTheme() {
    const isDark = document.documentElement.dataset.theme === "dark";
    fill(theme, isDark ? words.page.light : words.page.dark);
  }

  function skip(event) {
    event.preventDefault();
    main.focus();
  }

  async function leave() {
    await logOut().catch(() => {});
    location.reload(); // nothing of the reader's stays in memory
  }

  function keys(event) {
    const isTyping = event.target.closest?.("input, select, textarea");
    if (event.key === "?" && !isTyping) openHelp();
  }

  async function openHelp() {
    const { createHelp } = await import("./help.js");
    const dialog = createHelp();
    document.body.append(dialog);
    dialog.addEventListener("close", () => dialog.remove());
    dialog.showModal();
  }
}

/** Choosing images, sending them, and what came back. */
function readView(model) {
  const shelfHost = el("div", { class: "shelf-list" });
  const go = el("button", { type: "button", class: "primary go", on: { click: () => begin() } });
  const cancel = el("button", { type: "button", hidden: true, on: { click: () => stop?.abort() } },
    words.read.cancel);
  const bar = el("progress", { max: 1, hidden: true, "aria-label": words.read.progress });
  const said = el("div", { class: "said", role: "status" });
  const hint = el("p", { class: "muted small", role: "status" });
  const result = el("section", { class: "result", "aria-label": words.result.title });
  let stop = null;
  let shown = null;
  let points = null;
  const shelf = createShelf(shelfHost, update);
  const element = el(
    "div",
    { class: "read" },
    el(
      "section",
      { class: "shelf", "aria-label": words.shelf.title },
      shelfHost,
      el("div", { class: "actions" }, go, hint, cancel, bar, said),
    ),
    result,
  );
  sessionEnd.addEventListener("end", comeBack);
  update();
  return { element };

  function update() {
    element.classList.toggle("is-empty", shelf.isEmpty());
    go.hidden = shelf.isEmpty();
    go.disabled = Boolean(stop) || !shelf.isReady();
    fill(go, words.read.go(shelf.images().length));
    fill(hint, shelf.isEmpty() || shelf.isReady() || stop ? "" : words.read.notYet);
  }

  async function begin(gate = null) {
    const images = shelf.images();
    stop = new AbortController();
    shelf.point([], "");
    fill(said, "");
    working(true);
    try {
      const reading = await read(images, { gate, onProgress, signal: stop.signal });
      const known = await model;
      points ??= operatingPoints(known.model);
      const { showResult } = await import("./result.js");
      shown?.destroy();
      shown = showResult(result, reading, known, points);
      fill(said, words.read.done(reading.breasts.length));
      if (matchMedia(BELOW).matches) result.scrollIntoView();
    } catch (problem) {
      if (problem.name === "AbortError") fill(said, words.read.cancelled);
      else refused(problem);
    } finally {
      stop = null;
      working(false);
    }
  }

  function onProgress({ sent, of, share }) {
    if (share < 1) bar.value = (sent + share) / of;
    else bar.removeAttribute("value");
    fill(said, share < 1 ? words.read.sending((sent + share) / of) : words.read.reading);
  }

  function refused(fault) {
    const isOurs = !(fault instanceof Problem); // a fault of the page itself
    if (isOurs) reportError(fault);
    const problem = isOurs ? new Problem({ code: "broken_page" }) : fault;
    const text = words.problem(problem);
    const ids = (problem.images ?? []).map((image) => image.id);
    shelf.point(ids, text);
    const anyway = OF_THE_GATE.includes(problem.code)
      ? el("button", { type: "button", on: { click: () => begin("warn") } }, words.read.anyway)
      : null;
    fill(said, el("p", { class: "fault", role: "alert" }, text), anyway);
  }

  function working(isSo) {
    cancel.hidden = bar.hidden = !isSo;
    element.setAttribute("aria-busy", String(isSo));
    update();
  }

  /** The session is over: log in again over the page, which keeps its images. */
  async function comeBack() {
    if (document.querySelector("dialog.again")) return;
    const host = el("div", {});
    const dialog = el("dialog", { class: "again", "aria-label": words.login.over }, host);
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    document.body.append(dialog);
    dialog.showModal();
    await showLogin(host, await session());
    dialog.close();
    dialog.remove();
  }
}
