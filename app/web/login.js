// The way in: user and password, or the hospital's provider of identities.

import { el, fill } from "./dom.js";
import { logIn } from "./session.js";
import { words } from "./words.js";

/** Show the login in `host`; resolves to the session once somebody is in. */
export function showLogin(host, state) {
  return new Promise((resolve) => {
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
        // over the page, whose main part there is already
        host.closest("dialog") ? "div" : "main",
        { class: "login" },
        el("h1", {}, words.page.title),
        el("p", { class: "muted" }, words.page.what),
        state.https ? null : el("p", { class: "note warning" }, words.login.insecure),
        state.password ? form : null,
        state.oidc ? provider(state.password ? null : fault) : null,
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
  });
}

function provider(fault) {
  return el(
    "div",
    { class: "login-form" },
    fault,
    el("a", { class: "button", href: "/session/oidc" }, words.login.oidc),
  );
}
