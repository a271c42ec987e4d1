/** Requests that are not streams, and how servers refuse. No DOM; it runs in node as it is. */

/** However slow a network is, whoever sent something hears by then whether it arrived, in milliseconds. */
const PATIENCE = 30_000;

/** Browsers let 64 KiB outlive their page; a character is at most three bytes of that. */
const LIGHT = 20_000;

/** An answer that asking again will not change. Its message is the server's sentence, or empty. */
export class Refused extends Error {
  /** @param {number} status @param {string} sentence */
  constructor(status, sentence) {
    super(sentence);
    this.name = "Refused";
    this.status = status;
  }
}

/**
 * The sentence in which a server refuses, `{"error": "…"}`, or "" when it answered in another form.
 *
 * @param {Response} response
 * @returns {Promise<string>}
 */
export async function sentenceOf(response) {
  try {
    const { error } = await response.json();
    return typeof error === "string" ? error : "";
  } catch {
    return "";
  }
}

/**
 * POST JSON past Django's CSRF protection.
 *
 * @param {string} url
 * @param {string} csrfToken
 * @param {any} [content]
 * @throws {Refused} when the server answered with an error; whatever fetch throws when it did not answer
 */
export async function post(url, csrfToken, content = {}) {
  const headers = { "content-type": "application/json", "x-csrftoken": csrfToken };
  const body = JSON.stringify(content);
  const keepalive = body.length < LIGHT; // who sends and leaves has sent
  const response = await answered(fetch(url, { method: "POST", headers, body, keepalive, ...patience() }));
  await response.text(); // a body that nobody reads looks like an aborted request
}

/** DELETE, in the same way. @param {string} url @param {string} csrfToken @throws {Refused} as `post` does */
export async function remove(url, csrfToken) {
  await answered(fetch(url, { method: "DELETE", headers: { "x-csrftoken": csrfToken }, ...patience() }));
}

/**
 * @param {string} url
 * @returns {Promise<any>} the JSON of the answer
 * @throws {Refused} as `post` does
 */
export async function getJson(url) {
  const response = await answered(fetch(url, { cache: "no-store", ...patience() }));
  return response.json();
}

/**
 * An id that nobody else has. `crypto.randomUUID` is missing where a page comes over plain http.
 *
 * @returns {string}
 */
export function newId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {Promise<Response>} request */
async function answered(request) {
  const response = await request;
  if (response.ok) return response;
  throw new Refused(response.status, await sentenceOf(response));
}

function patience() {
  return { signal: AbortSignal.timeout(PATIENCE) };
}
