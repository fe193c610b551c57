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

async function taken(asked) {
  const state = await asked;
  useCsrf(state.csrf);
  return state;
}
