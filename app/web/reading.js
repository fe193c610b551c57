// Images -> requests -> what they were read as, breast by breast.

import { partName, requests } from "./plan.js";
import { asProblem, blamed, send } from "./service.js";

/**
 * @typedef {object} Breast what one breast was read as
 * @property {string|null} laterality
 * @property {number} probability calibrated, of the positive class
 * @property {number|null} before the same before any exam; null for an only image
 * @property {object} answer the whole answer of the service that it is in
 * @property {object} request what was asked, to ask for other forms of it
 * @property {Array<{date, days, after, change, images: Array<{image, heatmap, file}>}>} exams
 */

/**
 * Read `images` (see plan.js). `onProgress({sent, of, share})` tells how far sending is. Resolves to
 * `{breasts, ignored}`; `ignored` are `{file, code, detail}`. Throws `Problem`, with `images` that
 * it names, or an AbortError.
 */
export async function read(images, { gate, onProgress, signal }) {
  const all = requests(images).map((request) => ({
    ...request,
    query: { ...request.query, ...(gate ? { gate } : {}) },
  }));
  const breasts = [];
  const ignored = [];
  let model = null; // that of the first answer reads the rest, and what is saved later
  for (const [place, each] of all.entries()) {
    const onSent = (share) => onProgress({ sent: place, of: all.length, share });
    const options = { overlay: "none", map: "true", model };
    const answer = await ask(each, options, { onSent, signal });
    model ??= `${answer.model.name}/${answer.model.version}`;
    const request = { ...each, query: { ...each.query, model } };
    breasts.push(...breastsOf(answer, request));
    ignored.push(...(answer.ignored ?? []).map((each) => ({
      ...each, file: request.images[each.index].file,
    })));
  }
  return { breasts, ignored };
}

/** Ask for the same again with other pictures and objects. Throws `Problem`. */
export async function ask(request, options, { onSent = () => {}, signal }) {
  const form = new FormData();
  const part = request.path === "/predict" ? "file" : "files";
  request.images.forEach(({ file }, place) => form.append(part, file, partName(place)));
  if (request.series) form.append("series", JSON.stringify(request.series));
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries({ ...request.query, ...options })) {
    if (value) query.set(key, value);
  }
  try {
    return await send(`${request.path}?${query}`, form, { onSent, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const problem = asProblem(error);
    if (problem.code !== "unreachable") throw pointed(problem, request.images);
    throw await blamed(problem, request.images.map(({ file }) => file));
  }
}

function breastsOf(answer, request) {
  const fileOf = (index) => request.images[index].file;
  if (answer.breasts) return answer.breasts.map((b) => breast(b, b.laterality, answer, request, fileOf));
  if (answer.exams) {
    const side = request.series?.laterality ?? null;
    return [breast(answer, side, answer, request, fileOf)];
  }
  const { image, heatmap } = answer;
  const only = {
    exam_date: image.exam_date, days_since_previous: 0, change: null,
    calibrated_probability_after: answer.calibrated_probability,
    images: [{ index: 0, image, heatmap }],
  };
  const body = { ...answer, exams: [only] };
  return [breast(body, image.laterality, answer, request, fileOf)];
}

function breast(body, laterality, answer, request, fileOf) {
  return {
    laterality,
    probability: body.calibrated_probability,
    before: body.calibrated_probability_before_any_exam ?? null,
    positiveClass: body.positive_class,
    warnings: body.warnings.map((warning) =>
      ofExam(ofFile(warning, (place) => fileOf(place).name), body.exams)),
    answer,
    request,
    exams: body.exams.map((exam) => ({
      date: exam.exam_date,
      days: exam.days_since_previous,
      after: exam.calibrated_probability_after,
      change: exam.change,
      images: exam.images.map(({ index, image, heatmap }) => ({
        image, heatmap, file: fileOf(index),
      })),
    })),
  };
}

// Problems whose detail lists places of images in the request
const LISTING = [
  "no_exam_date", "duplicate_image", "mixed_patients", "mixed_breasts", "nothing_to_read",
];
const ONE = /^Image (\d+): /;
const EXAM = /^Exam (\d+) is /;

/** `problem` with the `images` of the request that it is about, and its detail by their files. */
function pointed(problem, images) {
  const detail = problem.detail ?? "";
  const places = LISTING.includes(problem.code) ? detail.match(/\d+/g) : ONE.exec(detail)?.slice(1);
  const found = (places ?? []).map((place) => images[Number(place)]).filter(Boolean);
  return Object.assign(problem, {
    images: images.length === 1 ? images : found,
    ...ofFile(problem, (place) => images[place].file.name),
  });
}

/** What is said of an image at a place of the request, which nobody sees: `file` is its name. */
function ofFile({ code, detail }, nameAt) {
  const place = ONE.exec(detail ?? "")?.[1];
  if (place === undefined) return { code, detail, file: null };
  return { code, detail: detail.replace(ONE, ""), file: nameAt(Number(place)) };
}

/** What is said of an exam at a place of the answer, counted from 0, with that `exam`. */
function ofExam(warning, exams) {
  const place = EXAM.exec(warning.detail ?? "")?.[1];
  return place === undefined ? warning : { ...warning, exam: exams[Number(place)] };
}
