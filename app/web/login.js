// The way in: user and password, or the hospital's provider of identities.

import { el, fill } from "./dom.js";
import { elsewhere, logIn, tellOthers } from "./session.js";
import { words } from "./words.js";

const POPUP = "popup,width=560,height=720";

/**
 * Show the login in `host`; resolves to the session once somebody is in. Over the page, in a dialog,
 * the provider is asked in another window, for this one would lose what it holds.
 */
export function showLogin(host, state) {
  const isOver = Boolean(host.closest("dialog"));
  const over = new AbortController();
  return new Promise((resolve) => {
    if (isOver) elsewhere(over.signal, resolve);
    const fault = el("p", { class: "fault", role: "alert" });
    const user = el("input", {
      id: "user", name: "user", autocomplete: "username", required: true, autocapitalize: "none",
      spellcheck: false,
    });
    const password = el("input", {
      id: "password", name: "password", type: "password", autocomplete: "current-password",
      required: true,
    });
    const button = el("button", { class: "primary", type: "submit" }, words.login.enter);
    const form = el(
      "form",
      { class: "login-form", noValidate: true },
      el("label", { for: "user" }, words.login.user),
      user,
      el("label", { for: "password" }, words.login.password),
      password,
      fault,
      button,
    );
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const empty = [user, password].find((input) => !input.value);
      if (empty) {
        fill(fault, words.login.empty);
        empty.focus();
        return;
      }
      button.disabled = true;
      fill(fault, "");
      try {
        resolve(await logIn(user.value, password.value));
      } catch (problem) {
        fill(fault, words.login.refused(problem));
        password.value = "";
        password.focus();
      } finally {
        button.disabled = false;
      }
    });
    fill(
      host,
      el(
        isOver ? "div" : "main", // the page below has its main part
        { class: "login" },
        el("h1", {}, words.page.title),
        el("p", { class: "muted" }, words.page.what),
        state.https ? null : el("p", { class: "note warning" }, words.login.insecure),
        state.password ? form : null,
        state.oidc ? provider(state.password ? null : fault, isOver) : null,
        state.password || state.oidc ? null : el("p", { class: "note" }, words.login.none),
        el("p", { class: "research" }, words.page.research),
      ),
    );
    (state.password ? user : host.querySelector("a, button"))?.focus();
    const code = new URLSearchParams(location.search).get("login"); // what came of the provider
    if (code) {
      fill(fault, words.login.refusedThere({ code }));
      history.replaceState(null, "", "/");
    }
  }).finally(() => over.abort());
}

function provider(fault, isOver) {
  const link = isOver
    ? { href: "/session/oidc?again=true", target: "_blank", on: { click: open } }
    : { href: "/session/oidc" };
  return el(
    "div",
    { class: "login-form" },
    fault,
    el("a", { class: "button", ...link }, words.login.oidc),
    isOver ? el("p", { class: "muted small" }, words.login.inAnotherWindow) : null,
  );
}

/** In a window of its own, which may close itself; where there is none, in a tab. */
function open(event) {
  if (window.open(event.currentTarget.href, "_blank", POPUP)) event.preventDefault();
}

/** What the window of a login shows in the end, unless it may close itself. */
export function showDone(host) {
  tellOthers();
  window.close();
  fill(
    host,
    el("main", { class: "login" }, el("h1", {}, words.page.title),
      el("p", { role: "status" }, words.login.done)),
  );
}
