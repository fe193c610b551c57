// The images that are going to be read: thumbnails, dates, sides, views, and what is wrong with them.

import { el, fill, say } from "./dom.js";
import { Unacceptable, droppedFiles, opened } from "./incoming.js";
import { VIEWS, faults, known } from "./plan.js";
import { asProblem, askFile, askPixels } from "./service.js";
import { drawThumbnail } from "./thumbnail.js";
import { words } from "./words.js";

const THUMBNAIL_SIDE = 144; // pixels, twice what it takes on the screen
const AT_ONCE = 3; // files looked at
// Not the fault of a file: it is worth another try
const PASSING = [
  "overloaded", "deadline_exceeded", "not_ready", "internal_error", "unreachable", "unexpected",
  "broken_page",
];
const EXAMPLES = ["2022-03-07.png", "2021-03-01.png", "2023-03-12.png"];

/**
 * The shelf in `host`. Tells `onChange()` when images come, go or change. `images()` are those that can
 * be read, in time order; `isReady()` says whether nothing is missing; `point(ids, text)` shows a
 * fault of the service at images.
 */
export function createShelf(host, onChange) {
  const entries = [];
  let counter = 0;
  let looking = 0;
  const waiting = [];

  const files = el("input", { type: "file", multiple: true, hidden: true, id: "files" });
  const folder = el("input", { type: "file", hidden: true, id: "folder", webkitdirectory: true });
  const fault = el("p", { class: "fault", role: "alert" });
  const list = el("ol", { class: "images", "aria-label": words.shelf.images });
  const count = el("p", { class: "muted count", role: "status" });
  const leaveOut = el("button", { type: "button", hidden: true, on: { click: dropRefused } });
  const again = el("button", { type: "button", hidden: true, on: { click: lookAgain } });
  const clear = el("button", { type: "button", on: { click: removeAll } }, words.shelf.clear);
  const example = el("button", { type: "button", class: "link", on: { click: addExample } });
  fill(example, words.shelf.example);
  const drop = el(
    "div",
    { class: "drop" },
    el("p", { class: "drop-title" }, words.shelf.drop),
    el("p", { class: "muted" }, words.shelf.accepts),
    el(
      "div",
      { class: "row" },
      el("button", { type: "button", class: "primary", on: { click: () => files.click() } },
        words.shelf.choose),
      el("button", { type: "button", on: { click: () => folder.click() } }, words.shelf.folder),
    ),
    example,
    files,
    folder,
  );
  fill(host, drop, fault, el("div", { class: "row shelf-head" }, count, again, leaveOut, clear),
    list);

  for (const input of [files, folder]) {
    input.addEventListener("change", async () => {
      const chosen = [...input.files];
      await take(() => opened(chosen));
      input.value = "";
    });
  }
  // Cards stay where they are while somebody is at them
  list.addEventListener("focusout", () => setTimeout(changed));
  window.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    drop.classList.add("is-over");
  });
  window.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.classList.remove("is-over");
  });
  window.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    drop.classList.remove("is-over");
    const incoming = droppedFiles(event.dataTransfer);
    location.hash = "#read"; // the images are not to be taken unseen
    take(() => incoming);
  });

  async function take(incoming) {
    fill(fault, "");
    try {
      (await incoming()).forEach(add);
    } catch (error) {
      const isOurs = error instanceof Unacceptable;
      fill(fault, isOurs ? words.shelf.unacceptable[error.reason] : words.problem(asProblem(error)));
    }
    changed();
  }

  async function addExample() {
    example.disabled = true;
    await take(() => Promise.all(EXAMPLES.map(exampleFile)));
    example.disabled = false;
    for (const entry of entries) {
      const name = EXAMPLES.find((name) => name === entry.file.name);
      if (name) Object.assign(entry.typed, { date: name.slice(0, 10), laterality: "R" });
    }
    changed();
  }

  function add(file) {
    counter += 1;
    const entry = {
      id: counter, file, facts: null, problem: null, isLooking: true, pointed: "",
      typed: { date: "", laterality: "", view: "" }, stop: new AbortController(),
    };
    entry.card = createCard(entry, { changed, remove: () => remove(entry) });
    entries.push(entry);
    list.append(entry.card.element);
    waiting.push(entry);
    lookAtNext();
  }

  async function lookAtNext() {
    if (looking >= AT_ONCE || !waiting.length) return;
    const entry = waiting.shift();
    looking += 1;
    try {
      const seen = await askPixels(entry.file, {
        longSide: THUMBNAIL_SIDE, signal: entry.stop.signal,
      });
      entry.facts = seen.header.image;
      entry.card.picture(seen);
    } catch (error) {
      if (error.name === "AbortError") return;
      entry.problem = asProblem(error);
    } finally {
      looking -= 1;
      entry.isLooking = false;
      lookAtNext();
    }
    changed();
  }

  function remove(entry) {
    const { element } = entry.card;
    const next = element.nextElementSibling ?? element.previousElementSibling;
    letGo([entry]);
    (next ?? drop).querySelector("button").focus();
  }

  function removeAll() {
    fill(fault, "");
    letGo([...entries]);
    drop.querySelector("button").focus();
  }

  function dropRefused() {
    letGo(entries.filter((entry) => entry.problem));
    clear.focus();
  }

  function letGo(gone) {
    for (const entry of gone) {
      entry.stop.abort();
      for (const held of [entries, waiting]) {
        const place = held.indexOf(entry);
        if (place >= 0) held.splice(place, 1);
      }
      entry.card.element.remove();
    }
    changed();
  }

  function lookAgain() {
    for (const entry of entries.filter(isPassing)) {
      Object.assign(entry, { problem: null, isLooking: true });
      waiting.push(entry);
    }
    changed();
    for (let slot = 0; slot < AT_ONCE; slot += 1) lookAtNext();
    clear.focus();
  }

  const readable = () => entries.filter((entry) => entry.facts).sort(inTime);
  const missing = () => [
    ...faults(readable(), today()),
    ...readable().filter(({ card }) => card.isUnfinished())
      .map(({ id }) => ({ id, field: "date", code: "invalid" })),
  ];

  function changed() {
    draw();
    onChange();
  }

  function draw() {
    const found = missing();
    for (const entry of entries) {
      entry.card.update(found.filter((each) => each.id === entry.id));
    }
    if (!list.contains(document.activeElement)) {
      inOrder(list, [...entries].sort(inTime).map((entry) => entry.card.element));
    }
    const passing = entries.filter(isPassing).length;
    again.hidden = !passing;
    fill(again, words.shelf.again(passing));
    const refused = entries.filter((entry) => entry.problem).length;
    leaveOut.hidden = refused < 2;
    fill(leaveOut, words.shelf.leaveOut(refused));
    clear.hidden = !entries.length;
    example.hidden = entries.length > 0;
    host.classList.toggle("is-empty", !entries.length);
    say(count, entries.length ? words.shelf.count(entries.length, examsOf(readable())) : "");
  }

  draw();
  return {
    images: readable,
    isEmpty: () => !entries.length,
    isReady: () =>
      entries.length > 0 &&
      entries.every((entry) => entry.facts) &&
      !missing().length,
    point(ids, text) {
      for (const entry of entries) entry.pointed = ids.includes(entry.id) ? text : "";
      changed();
    },
  };
}

/** One image: its thumbnail, its fields, what is wrong. */
function createCard(entry, { changed, remove }) {
  const canvas = el("canvas", { class: "thumbnail", width: 1, height: 1, "aria-hidden": "true" });
  const note = el("p", { class: "fault", id: `note-${entry.id}`, role: "status" });
  const fields = {
    date: field(entry, "date", el("input", { type: "date" }), changed),
    laterality: field(
      entry, "laterality", choice(["", "L", "R"], (side) => words.sides[side]), changed,
    ),
    view: field(entry, "view", choice(["", ...VIEWS], (v) => v || words.shelf.noView), changed),
  };
  const element = el(
    "li",
    { class: "image", "aria-label": entry.file.name },
    canvas,
    el(
      "div",
      { class: "image-text" },
      el(
        "div",
        { class: "row" },
        el("bdi", { class: "name", title: entry.file.name }, entry.file.name),
        el("button", {
          type: "button", class: "plain", "aria-label": words.shelf.remove(entry.file.name),
          title: words.shelf.remove(entry.file.name), on: { click: remove },
        }, "×"),
      ),
      el("div", { class: "fields" }, ...Object.values(fields).map((each) => each.element)),
      note,
    ),
  );
  return {
    element,
    picture: (seen) => drawThumbnail(canvas, seen),
    isUnfinished: () => fields.date.isUnfinished(),
    update(found) {
      for (const [name, each] of Object.entries(fields)) {
        each.update(found.find((fault) => fault.field === name)?.code);
      }
      element.classList.toggle("is-looking", entry.isLooking);
      element.classList.toggle("is-refused", Boolean(entry.problem));
      for (const each of Object.values(fields)) each.element.hidden = Boolean(entry.problem);
      say(note, entry.problem ? words.problem(entry.problem) : entry.pointed);
    },
  };
}

function field(entry, name, input, changed) {
  const id = `${name}-${entry.id}`;
  Object.assign(input, { id });
  input.setAttribute("aria-describedby", `${id}-fault`);
  const fault = el("span", { class: "fault", id: `${id}-fault` });
  input.addEventListener("change", () => {
    entry.typed[name] = input.value;
    entry.pointed = "";
    changed();
  });
  const label = el("label", { for: id }, words.shelf.fields[name]);
  // A date is typed part by part, and none of them may be taken away meanwhile
  const isAtWork = () => name === "date" && document.activeElement === input;
  const isUnfinished = () => !isAtWork() && input.validity.badInput;
  return {
    element: el("div", { class: `field field-${name}` }, label, input, fault),
    isUnfinished,
    update(code) {
      const value = known(entry, name);
      if (input.value !== value && !isAtWork() && !isUnfinished()) {
        offer(input, value);
        input.value = value;
      }
      input.setAttribute("aria-invalid", String(Boolean(code)));
      say(fault, code ? words.shelf.faults[name][code] : "");
    },
  };
}

function choice(values, name) {
  return el("select", {}, ...values.map((value) => el("option", { value }, name(value))));
}

/** A view that a file says and the list does not. */
function offer(input, value) {
  if (input.tagName !== "SELECT") return;
  if (![...input.options].some((option) => option.value === value)) {
    input.append(el("option", { value }, value));
  }
}

/** Put `nodes` in this order, moving none that is in its place. */
function inOrder(list, nodes) {
  nodes.forEach((node, place) => {
    if (list.children[place] !== node) list.insertBefore(node, list.children[place] ?? null);
  });
}

function inTime(a, b) {
  const key = (image) => ["date", "laterality", "view"].map((f) => known(image, f) || "~").join(" ");
  return key(a) === key(b) ? a.id - b.id : key(a) < key(b) ? -1 : 1;
}

const examsOf = (images) => new Set(images.map((image) => known(image, "date")).filter(Boolean)).size;

const exampleFile = (name) => askFile(`/web/examples/series/${name}`, name);

const hasFiles = ({ dataTransfer }) => dataTransfer.types.includes("Files");
const isPassing = ({ problem }) => PASSING.includes(problem?.code);

/** Today where the reader is, as `YYYY-MM-DD`. */
function today() {
  const now = new Date();
  const parts = [now.getFullYear(), now.getMonth() + 1, now.getDate()];
  return parts.map((part) => String(part).padStart(2, "0")).join("-");
}
