// The service: every request of the page goes through here.

/** A refusal of the service (RFC 9457), or that it could not be reached (`code` "unreachable"). */
export class Problem extends Error {
  constructor({ code, title, detail = "", advice = "", status = 0, retryAfter = null }) {
    super(title);
    Object.assign(this, { code, title, detail, advice, status, retryAfter });
  }
}

/** Told of answers that say that the session is over. */
export const sessionEnd = new EventTarget();

let csrf = null;

export const useCsrf = (token) => (csrf = token);

/** The body of an answer as JSON. Throws `Problem`. */
export async function askJson(path, options = {}) {
  return (await ask(path, options)).json();
}

export async function askText(path) {
  return (await ask(path, {})).text();
}

/**
 * The grey pixels of a file as the service decodes them: `{header, buffer}`, the header being that
 * of `Mammoseq-Image`. `longSide` asks for a smaller picture. Throws `Problem`.
 */
export async function askPixels(file, { longSide = null, signal = undefined } = {}) {
  const path = longSide ? `/pixels?long_side=${longSide}` : "/pixels";
  const type = "application/octet-stream";
  const answer = await ask(path, {
    method: "POST", body: file, headers: { "Content-Type": type }, signal,
  });
  return {
    header: JSON.parse(answer.headers.get("Mammoseq-Image")),
    buffer: await answer.arrayBuffer(),
  };
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
  const body = parsed(await answer.text());
  throw problemOf(answer.status, body, answer.headers.get("Retry-After"));
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
