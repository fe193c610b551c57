// The result as files, made by the service from the same images: nothing was kept there.

import { el, fill } from "./dom.js";
import { ask } from "./reading.js";
import { asProblem } from "./service.js";
import { words } from "./words.js";

const TYPES = { json: "application/json", fhir: "application/fhir+json", dicom: "application/dicom" };

/**
 * Buttons that save the answer that `breast` (see reading.js) is in, in each form; `point()` is the
 * operating point, `print()` prints, `signal` ends what is being made.
 */
export function createTakeaway(breast, point, print, signal) {
  const state = el("p", { class: "muted", role: "status" });
  let isAsking = false;
  const asked = async (form, options, files) => {
    if (isAsking) return;
    isAsking = true;
    const again = { ...options, operating_point: point() };
    fill(state, words.takeaway.making);
    try {
      const answer = await ask(breast.request, { overlay: "none", map: "true", ...again }, {
        signal,
      });
      const made = files(answer);
      made.forEach(({ data, name }) => save(new Blob([data], { type: TYPES[form] }), name));
      fill(state, words.takeaway.saved(made.length));
    } catch (problem) {
      if (problem.name !== "AbortError") fill(state, words.problem(asProblem(problem)));
    } finally {
      isAsking = false;
    }
  };
  const dicom = (kind) => () =>
    asked("dicom", { objects: kind }, (answer) =>
      answer.dicom.map((object, place) => ({
        data: bytes(object.data),
        name: `${named(kind)}${place ? `-${place + 1}` : ""}.dcm`,
      })),
    );
  const side = breast.request.series?.laterality;
  const named = (kind) => ["mammoseq", kind, side].filter(Boolean).join("-");
  const forms = {
    json: () => asked("json", {}, (answer) => [
      { data: JSON.stringify(answer, null, 1), name: `${named()}.json` },
    ]),
    sr: dicom("sr"),
    sc: dicom("sc"),
    fhir: () => asked("fhir", { objects: "fhir" }, (answer) => [
      { data: JSON.stringify(answer.fhir, null, 1), name: `${named("fhir")}.json` },
    ]),
    print: async () => {
      if (isAsking) return;
      isAsking = true;
      fill(state, words.takeaway.making);
      await print();
      fill(state);
      isAsking = false;
    },
  };
  const isDicom = breast.request.images.every(({ facts }) => facts.format === "dicom");
  const buttons = Object.entries(forms).map(([form, click]) => {
    const disabled = !isDicom && ["sr", "sc"].includes(form);
    const title = disabled ? words.takeaway.needsDicom : words.takeaway.about[form];
    return el("button", { type: "button", data: { form }, title, disabled, on: { click } },
      words.takeaway.forms[form]);
  });
  const isOfStudy = breast.answer.breasts?.length > 1;
  return el(
    "div",
    { class: "takeaway" },
    el("div", { class: "row" }, ...buttons),
    isOfStudy ? el("p", { class: "muted" }, words.takeaway.study) : null,
    state,
  );
}

function save(blob, name) {
  const address = URL.createObjectURL(blob);
  el("a", { href: address, download: name }).click();
  // The browser has taken the bytes by the next minute
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

const bytes = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
