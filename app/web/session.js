// Who is there: asked of the service, which keeps it in a cookie that scripts cannot read.

import { askJson, useCsrf } from "./service.js";

/** `{access, user, csrf, password, oidc, https}`, see docs/security.md. Throws `Problem`. */
export const session = () => taken(askJson("/session"));

export const logIn = (user, password) =>
  taken(
    askJson("/session", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ user, password }),
    }),
  );

export const logOut = () => taken(askJson("/session", { method: "DELETE" }));

const CHANNEL = "mammoseq-session";

/** Tell the pages that wait in other windows that somebody is in. */
export function tellOthers() {
  const channel = new BroadcastChannel(CHANNEL);
  channel.postMessage("in");
  channel.close();
}

/**
 * `then(session)` once somebody has logged in in another window: asked when that says so, or this
 * one is come back to, until `signal` aborts.
 */
export function elsewhere(signal, then) {
  const channel = new BroadcastChannel(CHANNEL);
  const look = async () => {
    const state = await session().catch(() => null); // asked again when there is reason to
    if (state?.user && !signal.aborted) then(state);
  };
  channel.addEventListener("message", look, { signal });
  window.addEventListener("focus", look, { signal });
  signal.addEventListener("abort", () => channel.close());
}

async function taken(asked) {
  const state = await asked;
  useCsrf(state.csrf);
  return state;
}
