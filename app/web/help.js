// The keys, in a dialog that `?` opens.

import { el } from "./dom.js";
import { shortcuts } from "./viewer/viewer.js";
import { words } from "./words.js";

export function createHelp() {
  const rows = [...words.help.keys, ...shortcuts].map(([keys, meaning]) =>
    el("tr", {}, el("td", {}, el("kbd", {}, keys)), el("td", {}, meaning)),
  );
  const dialog = el(
    "dialog",
    { class: "help", "aria-labelledby": "help-title" },
    el("h2", { id: "help-title" }, words.help.title),
    el("p", { class: "muted" }, words.help.about),
    el("table", {}, el("tbody", {}, ...rows)),
    el("form", { method: "dialog" }, el("button", { class: "primary" }, words.help.close)),
  );
  return dialog;
}
