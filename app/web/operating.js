// The operating point that is chosen: for every breast on the page, until the page is closed.

import { askJson, Problem } from "./service.js";

/**
 * A model in service (an entry of `/v1/models`), the default unless `answered` names another, and its
 * figures, null where it has none. Throws `Problem`, also where the one named was replaced meanwhile.
 */
export async function askModel(answered = null) {
  const { models } = await askJson("/v1/models");
  const model = answered
    ? models.find(({ name, version }) => name === answered.name && version === answered.version)
    : models[0];
  if (!model) throw new Problem({ code: "unknown_model", title: "" });
  const figures = await askJson(`/v1/models/${model.name}/${model.version}/figures`).catch(
    (problem) => {
      if (problem.code === "not_found") return null;
      throw problem;
    },
  );
  return { model, figures };
}

/** `{points, chosen(), choose(name), onChange(listener)}` */
export function operatingPoints(model) {
  const changes = new EventTarget();
  const points = model.operating_points;
  let name = model.default_operating_point;
  return {
    points,
    chosen: () => points.find((point) => point.name === name),
    choose(other) {
      name = other;
      changes.dispatchEvent(new Event("change"));
    },
    onChange(listener) {
      const stop = new AbortController();
      changes.addEventListener("change", listener, { signal: stop.signal });
      return () => stop.abort();
    },
  };
}
