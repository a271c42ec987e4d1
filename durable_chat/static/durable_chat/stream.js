/**
 * The resumable reader: a conversation's Durable Stream as batches of chunks, each delivered once,
 * over as many connections as it takes.
 *
 * It reads Server-Sent Events with `fetch` because EventSource cannot do this job: it reconnects to the
 * URL it was born with (an old offset by then), and hides the status and the `Retry-After` that tell a
 * conversation that is gone from a server that restarts. No DOM here; it runs in node as it is.
 *
 * @typedef {{type: string} & Record<string, any>} Chunk
 * @typedef {{streamNextOffset: string, streamCursor?: string, upToDate?: boolean, streamClosed?: boolean}} Control
 * @typedef {"connecting" | "live" | "waiting" | "resting" | "stopped"} ReaderState
 *
 * @typedef {object} ReaderOptions
 * @property {string} url where to read; its query is kept, `offset`, `live` and `cursor` are added
 * @property {string} offset where to begin: everything after it is delivered
 * @property {(chunks: Chunk[], control: Control) => void} onBatch
 * @property {(state: ReaderState, reason?: Error) => void} [onState] "stopped" with a `Refused` is a refusal
 * @property {() => boolean} [mayRest] asked before each connection; true waits for `wake()` instead
 * @property {typeof delayBefore} [delay] how long to wait after a failure
 */

import { Refused, sentenceOf } from "./requests.js";
import { events } from "./sse.js";

const FIRST_DELAY = 500;
const LONGEST_DELAY = 15_000;
/** Nothing for this long is a dead connection: the server ends and reopens its windows every minute. */
const DEAD_AFTER = 90_000;
/** On waking, a connection that was silent this long is not trusted: a sleeping machine misses resets. */
const SUSPECT_AFTER = 10_000;
/** A connection that ends sooner and brought nothing is a failure, not a roll. */
const SHORTEST_ROLL = 10_000;
/** However often it is woken, attempts are at least this far apart. */
const SHORTEST_PAUSE = 1_000;

export class StreamReader {
  /** Everything up to here has been delivered. @type {string} */
  offset;
  /** @type {ReaderState} */
  state = "connecting";
  /** @type {string | undefined} */
  #cursor;
  /** @type {Required<ReaderOptions>} */
  #options;
  /** @type {AbortController | undefined} */
  #life;
  /** @type {AbortController | undefined} */
  #connection;
  /** @type {((woken: boolean) => void) | undefined} */
  #endPause;
  #heard = 0;
  #opened = 0;

  /** @param {ReaderOptions} options */
  constructor(options) {
    this.#options = { onState: () => {}, mayRest: () => false, delay: delayBefore, ...options };
    this.offset = options.offset;
  }

  /** Begin, or go on where `stop` left off. */
  start() {
    if (this.#life) return;
    this.#life = new AbortController();
    this.#enter("connecting");
    void this.#follow(this.#life.signal);
  }

  /** Let go of the connection. What was delivered stays delivered. */
  stop() {
    this.#life?.abort();
    this.#life = undefined;
    this.#connection?.abort();
    this.#endPause?.(false);
  }

  /** Someone is looking, or the network is back: do not wait out a pause, do not trust an old silence. */
  wake() {
    this.#endPause?.(true);
    if (Date.now() - this.#heard > SUSPECT_AFTER) this.#connection?.abort();
  }

  /** @param {AbortSignal} life */
  async #follow(life) {
    for (let failures = 0; !life.aborted; ) {
      if (this.#options.mayRest()) {
        this.#enter("resting");
        await this.#pause(Infinity);
        if (life.aborted) return;
      }
      const before = this.offset;
      const connection = (this.#connection = new AbortController());
      let reopen = false;
      let retryAfter = 0;
      try {
        if (await this.#window(connection)) return this.#end();
        reopen = true;
      } catch (error) {
        if (life.aborted) return;
        if (error instanceof Refused) return this.#end(error);
        reopen = connection.signal.aborted; // by wake() or by the watchdog
        retryAfter = error.retryAfter ?? 0;
      }
      const useful = this.offset !== before || Date.now() - this.#opened > SHORTEST_ROLL;
      failures = useful ? 0 : failures + 1;
      if (reopen && useful) continue;
      if (failures) this.#enter("waiting"); // one drop is not worth a word
      await this.#pause(this.#options.delay(failures, retryAfter), retryAfter > 0);
    }
  }

  /**
   * One connection, from the offset to its end.
   *
   * A data event counts only with the control event that follows it: the two are delivered together or,
   * when the connection breaks between them, not at all, and the next connection brings both again.
   *
   * @param {AbortController} connection
   * @returns {Promise<boolean>} whether the stream is closed for good
   */
  async #window(connection) {
    this.#opened = this.#heard = Date.now();
    if (this.state !== "live") this.#enter("connecting"); // a roll is no news
    const watchdog = setInterval(() => {
      if (Date.now() - this.#heard > DEAD_AFTER) connection.abort();
    }, SUSPECT_AFTER);
    try {
      const body = await this.#open(connection.signal);
      /** @type {Chunk[]} */
      let chunks = [];
      for await (const event of events(body, () => (this.#heard = Date.now()))) {
        connection.signal.throwIfAborted(); // what is still buffered belongs to whoever reads next
        if (event.type === "data") chunks = chunks.concat(JSON.parse(event.data));
        if (event.type !== "control") continue;
        /** @type {Control} */
        const control = JSON.parse(event.data);
        this.offset = control.streamNextOffset;
        this.#cursor = control.streamCursor;
        this.#enter("live");
        this.#deliver(chunks, control);
        if (control.streamClosed) return true;
        chunks = [];
      }
      return false;
    } finally {
      clearInterval(watchdog);
    }
  }

  /**
   * Whoever takes a batch and fails has failed alone: the error is reported, the reading goes on.
   *
   * @param {Chunk[]} chunks
   * @param {Control} control
   */
  #deliver(chunks, control) {
    try {
      this.#options.onBatch(chunks, control);
    } catch (error) {
      (globalThis.reportError ?? console.error)(error);
    }
  }

  /** @param {AbortSignal} signal */
  async #open(signal) {
    const [path, query] = this.#options.url.split("?");
    const parameters = new URLSearchParams(query);
    parameters.set("offset", this.offset);
    parameters.set("live", "sse");
    if (this.#cursor) parameters.set("cursor", this.#cursor);
    const response = await fetch(`${path}?${parameters}`, {
      headers: { accept: "text/event-stream" },
      cache: "no-store",
      signal,
    });
    return streamOf(response);
  }

  /**
   * @param {number} milliseconds
   * @param {boolean} [ordered] the server asked for this pause: waking does not cut it short
   * @returns {Promise<void>}
   */
  #pause(milliseconds, ordered = false) {
    return new Promise((resolve) => {
      let timer = milliseconds < Infinity ? setTimeout(resolve, milliseconds) : undefined;
      this.#endPause = (woken) => {
        if (woken && ordered) return;
        clearTimeout(timer);
        timer = setTimeout(resolve, woken ? this.#opened + SHORTEST_PAUSE - Date.now() : 0);
      };
    });
  }

  /** @param {Refused} [refusal] */
  #end(refusal) {
    this.#life = undefined;
    this.#enter("stopped", refusal);
  }

  /** @param {ReaderState} state @param {Error} [reason] */
  #enter(state, reason) {
    if (state === this.state) return;
    this.state = state;
    this.#options.onState(state, reason);
  }
}

/**
 * Half of a pause is chance: a thousand pages that lose one server do not come back in one instant.
 *
 * @param {number} failures attempts in a row that brought nothing
 * @param {number} retryAfter seconds; 0 when the server did not say
 * @returns {number} milliseconds
 */
export function delayBefore(failures, retryAfter) {
  if (retryAfter) return retryAfter * 1000 * (1 + Math.random() / 4);
  return Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures) * (0.5 + Math.random() / 2);
}

/**
 * @param {Response} response
 * @returns {Promise<ReadableStream<Uint8Array>>}
 * @throws {Refused} when asking again is no use; another error, with `retryAfter` in seconds, when it may be
 */
async function streamOf(response) {
  const { status, headers, body } = response;
  if (status === 200 && body && headers.get("content-type")?.startsWith("text/event-stream")) return body;
  if (status >= 500 || status === 429 || status === 408) {
    const retryAfter = Number(headers.get("retry-after")) || 0;
    await body?.cancel(); // or the connection stays busy until the garbage is collected
    throw Object.assign(new Error(`The server answered ${status}.`), { retryAfter });
  }
  // A page where a stream should be is where a redirect to a sign-in form ends.
  throw new Refused(response.ok ? 401 : status, await sentenceOf(response));
}
