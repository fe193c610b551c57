// The service: every request of the page goes through here.

/** What went wrong, as a `Problem`: also what is a fault of the page itself. */
export function asProblem(error) {
  if (error instanceof Problem) return error;
  reportError(error);
  return new Problem({ code: "broken_page", title: "" });
}

/** A refusal of the service (RFC 9457), or that it could not be reached (`code` "unreachable"). */
export class Problem extends Error {
  constructor({ code, title, detail = "", advice = "", status = 0, retryAfter = null }) {
    super(title);
    Object.assign(this, { code, title, detail, advice, status, retryAfter });
  }
}

/** Told ("end") of answers that say that the session is over; tells ("back") of the next one. */
export const sessionEnd = new EventTarget();

const PATIENCE = 6; // times that a busy service is asked again for a picture
const WAIT = 2; // seconds, where it does not say how long

let csrf = null;

export const useCsrf = (token) => (csrf = token);

/** The body of an answer as JSON. Throws `Problem`. */
export async function askJson(path, options = {}) {
  return (await ask(path, options)).json();
}

export async function askText(path) {
  return (await ask(path, {})).text();
}

/** A file of the service. Throws `Problem`. */
export async function askFile(path, name) {
  return new File([await (await ask(path, {})).blob()], name);
}

/**
 * The grey pixels of a file as the service decodes them: `{header, buffer}`, the header being that
 * of `Mammoseq-Image`. `longSide` asks for a smaller picture. While the service is busy or the session
 * over, it waits and asks again. Throws `Problem`.
 */
export async function askPixels(file, { longSide = null, signal = undefined } = {}) {
  const path = longSide ? `/pixels?long_side=${longSide}` : "/pixels";
  const type = "application/octet-stream";
  const options = { method: "POST", body: file, headers: { "Content-Type": type }, signal };
  for (let left = PATIENCE; ; left -= 1) {
    try {
      const answer = await ask(path, options);
      return {
        header: JSON.parse(answer.headers.get("Mammoseq-Image")),
        buffer: await whole(answer.arrayBuffer()),
      };
    } catch (problem) {
      if (problem.code === "login_required") await told(sessionEnd, "back", signal);
      else if (problem.code === "overloaded" && left) await rest(problem.retryAfter ?? WAIT, signal);
      else throw await (problem.code === "unreachable" ? blamed(problem, [file]) : problem);
    }
  }
}

/** The same `problem`, or that one of `files` is no more what was chosen: then nothing is sent. */
export async function blamed(problem, files) {
  try {
    for (const file of files) await file.slice(0, 1).arrayBuffer();
    return problem;
  } catch {
    return new Problem({ code: "file_changed", title: "" });
  }
}

/**
 * Send a form and report how much of it is sent: `onSent(share)`. Resolves to the JSON of the answer.
 * Aborting `signal` rejects with an AbortError. Throws `Problem`.
 */
export function send(path, form, { onSent, signal }) {
  // fetch does not tell how much of a body is sent
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.setRequestHeader("Accept", "application/json");
    if (csrf) request.setRequestHeader("X-CSRF-Token", csrf);
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) onSent(event.loaded / event.total);
    });
    request.addEventListener("load", () => {
      const body = parsed(request.responseText);
      if (request.status === 200 && body) return resolve(body);
      const retryAfter = request.getResponseHeader("Retry-After");
      return reject(problemOf(request.status, body, retryAfter));
    });
    request.addEventListener("error", () => reject(unreachable()));
    request.addEventListener("abort", () => reject(new DOMException("", "AbortError")));
    signal.throwIfAborted();
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

async function ask(path, { headers = {}, ...options }) {
  const sent = csrf ? { ...headers, "X-CSRF-Token": csrf } : headers;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: sent, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
  if (answer.ok) return answer;
  const body = parsed(await whole(answer.text()));
  throw problemOf(answer.status, body, answer.headers.get("Retry-After"));
}

/** The body of an answer, which may break off on its way. */
async function whole(body) {
  try {
    return await body;
  } catch (error) {
    throw error.name === "AbortError" ? error : unreachable();
  }
}

/** Resolves when `target` tells of `event`; an abort of `signal` rejects. */
function told(target, event, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    target.addEventListener(event, resolve, { once: true, signal });
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

function rest(seconds, signal) {
  const timer = new EventTarget();
  setTimeout(() => timer.dispatchEvent(new Event("over")), 1000 * seconds);
  return told(timer, "over", signal);
}

function problemOf(status, body, retryAfter) {
  const known = body?.code ? body : { code: "unexpected", title: "" };
  if (known.code === "login_required") sessionEnd.dispatchEvent(new Event("end"));
  return new Problem({ ...known, status, retryAfter: Number(retryAfter) || null });
}

const unreachable = () => new Problem({ code: "unreachable", title: "" });

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
