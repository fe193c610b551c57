// The page from its start: who is there, then reading or the model.

import { el, fill, say } from "./dom.js";
import { showDone, showLogin } from "./login.js";
import { askModel, operatingPoints } from "./operating.js";
import { known } from "./plan.js";
import { read } from "./reading.js";
import { logOut, session } from "./session.js";
import { asProblem, sessionEnd } from "./service.js";
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
    const isDone = new URLSearchParams(location.search).get("login") === "done";
    if (isDone && state.user) return showDone(app);
    const isIn = state.access === "open" || state.user;
    showPage(isIn ? state : await showLogin(app, state));
  } catch (problem) {
    const text = words.problem(asProblem(problem));
    fill(app, el("main", { class: "login" }, el("p", { role: "alert" }, text)));
  }
}

async function showPage(state) {
  const model = askModel();
  const views = { read: readView(model, state), model: null };
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
  sessionEnd.addEventListener("back", show); // what could not be shown without a session
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
      views.model ??= { element: host, ...createAbout(host) };
      if (location.hash !== "#model") return; // somebody went back meanwhile
    }
    if (name === "read") views.model?.hide();
    else views.model.show();
    const left = Object.values(views).find((view) => view?.element.isConnected);
    if (left) left.places = placesIn(left.element);
    fill(main, views[name].element);
    views[name].places?.forEach(([node, place]) => Object.assign(node, place));
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
    // A key alone does something on a picture only (WCAG 2.1.4)
    if (event.key === "?" && event.target.closest?.(".viewer")) openHelp();
  }

  async function openHelp() {
    const { createHelp } = await import("./help.js");
    const dialog = createHelp();
    document.body.append(dialog);
    dialog.addEventListener("close", () => dialog.remove());
    dialog.showModal();
  }
}

/** How far the parts of `element` are scrolled, which is lost where it leaves the page. */
const placesIn = (element) =>
  [document.documentElement, ...element.querySelectorAll("*")]
    .map((node) => [node, { scrollLeft: node.scrollLeft, scrollTop: node.scrollTop }])
    .filter(([, { scrollLeft, scrollTop }]) => scrollLeft || scrollTop);

/** Choosing images, sending them, and what came back. */
function readView(model, { user }) {
  const shelfHost = el("div", { class: "shelf-list" });
  const go = el("button", { type: "button", class: "primary go", on: { click: () => begin() } });
  const cancel = el("button", { type: "button", hidden: true, on: { click: () => stop?.abort() } },
    words.read.cancel);
  const bar = el("progress", { max: 1, hidden: true, "aria-label": words.read.progress });
  const sent = el("p", { class: "muted sent" }); // seen, not told at every step
  const said = el("div", { class: "said", role: "status" });
  const hint = el("p", { class: "muted small", role: "status" });
  const old = el("p", { class: "note warning old", role: "status" });
  const result = el("section", {
    class: "result", tabIndex: -1, "aria-label": words.result.title,
  });
  let stop = null;
  let shown = null; // what was read, and `of` which state of the shelf
  let told = ""; // the state of the shelf that `said` is about
  let served = null;
  let points = null;
  const shelf = createShelf(shelfHost, changed);
  const element = el(
    "div",
    { class: "read" },
    el(
      "section",
      { class: "shelf", "aria-label": words.shelf.title },
      shelfHost,
      el("div", { class: "actions" }, go, hint, cancel, bar, sent, said),
    ),
    el("div", { class: "outcome" }, old, result),
  );
  sessionEnd.addEventListener("end", comeBack);
  update();
  return { element };

  function changed() {
    const now = stateOf(shelf.images());
    if (now !== told && !stop) {
      told = now;
      fill(said);
      shelf.point([], "");
    }
    if (shelf.isEmpty()) stop?.abort(); // nobody waits for what was taken away
    if (shown && shelf.isEmpty()) {
      shown.destroy();
      shown = null;
      fill(result);
    }
    // Another woman's images may be there by now
    const isOld = Boolean(shown) && shown.of !== now;
    say(old, isOld ? words.read.old : "");
    update();
  }

  function update() {
    element.classList.toggle("is-empty", shelf.isEmpty());
    go.hidden = shelf.isEmpty();
    go.disabled = Boolean(stop) || !shelf.isReady();
    fill(go, words.read.go(shelf.images().length));
    say(hint, shelf.isEmpty() || shelf.isReady() || stop ? "" : words.read.notYet);
  }

  async function begin(gate = null) {
    if (stop || !shelf.isReady()) return;
    const images = shelf.images();
    const of = stateOf(images);
    const own = (stop = new AbortController());
    shelf.point([], "");
    working(true);
    try {
      const reading = await read(images, { gate, onProgress, signal: own.signal });
      const ofModel = await modelOf(reading.breasts[0].answer.model);
      const { showResult } = await import("./result.js");
      own.signal.throwIfAborted();
      shown?.destroy();
      shown = { of, ...showResult(result, reading, ofModel, points) };
      fill(said, words.read.done(reading.breasts.length));
      if (cancel === document.activeElement) result.focus({ preventScroll: true });
      if (matchMedia(BELOW).matches) result.scrollIntoView();
    } catch (problem) {
      if (problem.name === "AbortError") fill(said, words.read.cancelled);
      else refused(asProblem(problem));
    } finally {
      const isHere = cancel === document.activeElement;
      stop = null;
      told = stateOf(shelf.images());
      working(false);
      if (isHere) go.focus();
      changed();
    }
  }

  /** What is known of the model that answered; another may be in service by now. */
  async function modelOf({ name, version }) {
    served ??= await model.catch(() => null);
    if (served?.model.name !== name || served.model.version !== version) {
      served = await askModel({ name, version });
      points = null;
    }
    points ??= operatingPoints(served.model);
    return served;
  }

  function onProgress({ sent: before, of, share }) {
    const isSending = share < 1;
    if (isSending) bar.value = (before + share) / of;
    else bar.removeAttribute("value");
    fill(sent, isSending ? words.read.sending((before + share) / of) : "");
    say(said, isSending ? "" : words.read.reading);
  }

  function refused(problem) {
    const text = words.problem(problem);
    const ids = (problem.images ?? []).map((image) => image.id);
    shelf.point(ids, text);
    const anyway = OF_THE_GATE.includes(problem.code)
      ? el("button", { type: "button", on: { click: () => begin("warn") } }, words.read.anyway)
      : null;
    fill(said, el("p", { class: "fault", role: "alert" }, text), anyway);
  }

  function working(isSo) {
    const isHere = [go, ...said.children].includes(document.activeElement);
    cancel.hidden = bar.hidden = sent.hidden = !isSo;
    if (isSo && isHere) cancel.focus(); // the button that was pressed goes
    if (isSo) fill(said, "");
    result.setAttribute("aria-busy", String(isSo));
    update();
  }

  /** The session is over: log in again over the page, which keeps its images. */
  async function comeBack() {
    if (document.querySelector("dialog.again")) return;
    const host = el("div", {});
    const dialog = el("dialog", { class: "again", "aria-label": words.login.over }, host);
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => dialog.isConnected && dialog.showModal());
    document.body.append(dialog);
    dialog.showModal();
    const state = await backIn(host);
    // What is here is not for somebody else
    if (state.user !== user) return location.reload();
    dialog.remove();
    sessionEnd.dispatchEvent(new Event("back"));
  }
}

/** Resolves to a session once there is one. */
async function backIn(host) {
  for (;;) {
    try {
      const state = await session();
      return state.access === "open" || state.user ? state : await showLogin(host, state);
    } catch (problem) {
      await new Promise((resolve) => {
        const again = el("button", { type: "button", on: { click: resolve } }, words.read.again);
        fill(host, el("p", { role: "alert" }, words.problem(asProblem(problem))), again);
      });
    }
  }
}

/** Two states are equal where the same would be read. */
const stateOf = (images) =>
  JSON.stringify(images.map((image) =>
    [image.id, ...["date", "laterality", "view"].map((field) => known(image, field))]));
