/**
 * One conversation on a page: what arrives is folded and shown, what is written is sent.
 *
 * The page is a hydration of itself: the transcript on it and its `data-offset` are always of one moment, so a
 * page out of a cache, and a copy of the element, go on from where they are like one that was just loaded.
 *
 * @typedef {import("./stream.js").Chunk} Chunk
 * @typedef {import("./stream.js").Control} Control
 * @typedef {import("./stream.js").ReaderState} ReaderState
 * @typedef {import("./parts.js").Message} Message
 * @typedef {{runId: string | null, message?: Message | null}} Change a run that began or, with null, ended
 * @typedef {{chunks: Chunk[], changed: Set<Message>, turns: Change[], revision: number, offset: string}} Arrived
 */

import { Composer } from "./composer.js";
import { Fold } from "./fold.js";
import { Queue } from "./queue.js";
import { Refused, getJson, newId, post, remove } from "./requests.js";
import { StreamReader } from "./stream.js";
import { View, find } from "./view.js";

export class Conversation {
  /** A message was sent, and its run has not begun. */
  #awaiting = false;
  /** What has been folded and is not shown yet. @type {Arrived | null} */
  #arrived = null;
  /** @type {AbortController | undefined} */
  #listening;

  /** @param {HTMLElement} root the element of class `durable-chat` */
  constructor(root) {
    this.root = root;
    this.view = new View(root);
    this.composer = new Composer(root, () => this.send());
    this.queue = new Queue(root);
    this.fold = new Fold({ messages: this.view.adopt(), activeRun: root.dataset.activeRun || null });
    this.reader = new StreamReader({
      url: root.dataset.readUrl ?? "",
      offset: root.dataset.offset ?? "",
      onBatch: (chunks, control) => this.#take(chunks, control),
      onState: (state, reason) => this.#connection(state, reason),
      // Browsers open six connections to a host over HTTP/1.1: a tab that nobody looks at gives its own back.
      mayRest: () => document.hidden && !this.busy,
    });
  }

  get busy() {
    return this.#awaiting || this.fold.activeRun !== null;
  }

  /** What sending does now: "busy", nothing. */
  get #state() {
    const { whenBusy } = this.root.dataset;
    if (!this.busy) return "idle";
    return whenBusy === "queue" || whenBusy === "interrupt" ? whenBusy : "busy";
  }

  start() {
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    const wake = () => document.hidden || this.reader.wake();
    document.addEventListener("visibilitychange", wake, { signal });
    window.addEventListener("online", wake, { signal });
    window.addEventListener("pagehide", () => this.reader.stop(), { signal });
    window.addEventListener("pageshow", () => this.reader.start(), { signal });
    this.root.addEventListener("click", (event) => this.#click(event), { signal });
    this.composer.listen(signal);
    this.#recognise();
    this.view.keepScrolled(signal);
    this.#refresh();
    const last = this.fold.messages.at(-1);
    if (!this.busy && last && (last.role === "user" || !last.parts.length)) this.#say("unanswered", "retry");
    this.reader.start();
  }

  stop() {
    this.#listening?.abort();
    this.reader.stop();
  }

  /** @param {string} [text] @returns {Promise<boolean>} */
  async send(text = this.composer.text) {
    text = text.trim();
    if (!text || this.#state === "busy") return false;
    const { unsent } = this.composer;
    const id = unsent?.text === text ? unsent.id : newId();
    const turn = { message: { id, role: "user", parts: [{ type: "text", content: text }] }, data: {} };
    if (!this.#emit("send", turn)) return false;
    if (this.busy) return this.#wait(turn, text);
    const shown = this.fold.expect(id, text);
    this.view.draw(shown);
    this.view.scrollToEnd();
    if (this.composer.text.trim() === text) this.composer.text = "";
    const error = await this.#ask(turn);
    if (!error || !shown.pending) {
      this.composer.unsent = null; // an echo says more than a lost answer
      return true;
    }
    this.fold.forget(shown);
    this.view.redraw(this.fold.messages);
    return this.#takeBack(id, text, error);
  }

  /**
   * Send a message whose turn is yet to come: it is in no transcript before that.
   *
   * @param {{message: any, data: any}} turn @param {string} text @returns {Promise<boolean>}
   */
  async #wait({ message, data }, text) {
    const { sendUrl = "", csrfToken = "" } = this.root.dataset;
    this.queue.add(message.id, text);
    if (this.composer.text.trim() === text) this.composer.text = "";
    this.view.tell("");
    try {
      await post(sendUrl, csrfToken, { messages: [message], data });
    } catch (error) {
      if (this.queue.remove(message.id)) return this.#takeBack(message.id, text, error);
    }
    this.composer.unsent = null;
    this.queue.confirm(message.id);
    this.view.announce(this.#phrase("waits"));
    return true;
  }

  /** @param {string} id @param {string} text @param {any} error */
  #takeBack(id, text, error) {
    this.composer.text = [text, this.composer.text].filter(Boolean).join("\n\n");
    this.composer.unsent = { id, text };
    this.#refuse(error, "unsent", "retry");
    return false;
  }

  /** Take a message out of the line; its text is back in the composer, unless another is there. @param {string} id */
  async withdraw(id, name = id) {
    const { queueUrl = "", csrfToken = "" } = this.root.dataset;
    try {
      await remove(queueUrl + encodeURIComponent(name), csrfToken);
    } catch (error) {
      this.#refuse(error, "unwithdrawn");
      return this.#recount();
    }
    const text = this.queue.remove(id);
    if (!this.composer.text) this.composer.text = text;
    this.composer.input.focus();
    this.view.announce(this.#phrase("withdrawn"));
  }

  /** What waits may have been withdrawn elsewhere, of which no chunk tells. */
  async #recount() {
    try {
      const { queued } = await getJson(this.root.dataset.hydrateUrl ?? "");
      this.queue.sync(queued);
    } catch {
      // The next end of a run looks again.
    }
  }

  /** @returns {Promise<boolean>} */
  async retry() {
    const { unsent, text } = this.composer;
    if (unsent) return this.send(text || unsent.text);
    if (this.busy) return false;
    const error = await this.#ask(this.#lastTurn());
    if (error) this.#refuse(error, "unsent", "retry");
    return !error;
  }

  async cancel() {
    try {
      await post(this.root.dataset.stopUrl ?? "", this.root.dataset.csrfToken ?? "");
    } catch (error) {
      this.#refuse(error, "unstopped");
    }
  }

  /** From the server, because an echo tells a message's text and not its attachments. */
  async #lastTurn() {
    const { messages } = await getJson(this.root.dataset.hydrateUrl ?? "");
    const { id, role, parts } = messages.findLast((/** @type {any} */ { role }) => role === "user");
    return { message: { id, role, parts }, data: {} };
  }

  /**
   * @param {{message: any, data: any} | Promise<{message: any, data: any}>} turn
   * @returns {Promise<any>} what went wrong, if anything did
   */
  async #ask(turn) {
    this.#awaiting = true;
    this.view.tell("");
    this.#refresh();
    if (this.reader.state !== "live") this.reader.wake(); // the answer comes by the stream
    try {
      const { sendUrl = "", csrfToken = "" } = this.root.dataset;
      const { message, data } = await turn;
      await post(sendUrl, csrfToken, { messages: [message], data });
      return null;
    } catch (error) {
      this.#awaiting = false;
      this.#refresh();
      return error;
    }
  }

  /** @param {Chunk[]} chunks @param {Control} control */
  #take(chunks, control) {
    const first = this.#arrived === null;
    const { revision } = this.fold;
    const arrived = (this.#arrived ??= { chunks: [], changed: new Set(), turns: [], revision, offset: "" });
    for (const chunk of chunks) {
      const message = this.fold.apply(chunk);
      if (message) arrived.changed.add(message);
      if (chunk.type.startsWith("RUN_")) arrived.turns.push({ runId: this.fold.activeRun, message });
      arrived.chunks.push(chunk);
    }
    arrived.offset = control.streamNextOffset;
    // However fast it comes, it is drawn once a frame. A page that nobody sees has no frames.
    if (document.hidden) this.#draw();
    else if (first) requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    if (!this.#arrived) return;
    const { chunks, changed, turns, revision, offset } = this.#arrived;
    this.#arrived = null;
    if (this.fold.revision !== revision) this.view.redraw(this.fold.messages);
    else for (const message of changed) this.view.draw(message);
    if (turns.length) this.#awaiting = false;
    this.root.dataset.offset = offset;
    this.root.dataset.activeRun = this.fold.activeRun ?? "";
    this.#recognise();
    this.queue.settle((id) => this.fold.find(id));
    this.#refresh();
    for (const { runId, message } of turns) this.#turn(runId, message);
    if (chunks.length) this.#emit("chunks", { chunks, offset });
  }

  /** A message that seemed not to arrive comes back by the stream: it did arrive. */
  #recognise() {
    const { unsent, text } = this.composer;
    if (!unsent || !this.fold.find(unsent.id)) return;
    if (text === unsent.text) this.composer.text = "";
    this.composer.unsent = null;
    this.view.tell("");
  }

  /** @param {string | null} runId @param {Message | null} [message] */
  #turn(runId, message) {
    if (runId) this.view.tell("");
    const ended = message?.role === "error" || message?.role === "note" ? [message] : this.#said();
    this.view.announce(runId ? this.#phrase("writing") : textOf(ended));
    if (!runId && !this.queue.empty) void this.#recount();
    this.#emit("run", { runId });
  }

  /** What was said since the last question. */
  #said() {
    const { messages } = this.fold;
    return messages.slice(messages.findLastIndex(({ role }) => role === "user") + 1);
  }

  #refresh() {
    this.view.write(this.busy, this.fold.answer);
    this.composer.write(this.#state, this.fold.activeRun !== null);
    find(this.root, ".durable-chat__empty").hidden = this.fold.messages.length > 0;
    this.view.settle();
  }

  /** @param {ReaderState} state @param {Error} [reason] */
  #connection(state, reason) {
    if (state !== "connecting") this.view.show(".durable-chat__status", state);
    if (reason) this.#cutOff(reason);
    this.#emit("connection", { state });
  }

  /** Whatever is being written will not be read here. @param {Error} reason */
  #cutOff(reason) {
    this.#awaiting = false;
    this.fold.activeRun = null;
    this.#refresh();
    this.#refuse(reason, "unread", "reload");
  }

  /**
   * @param {any} error
   * @param {string} otherwise the phrase for an error that has no sentence of the server's
   * @param {"retry" | "reload"} [action]
   */
  #refuse(error, otherwise, action) {
    const refused = error instanceof Refused;
    if (refused && error.status === 404) return this.#say("unread", "reload");
    // What a server says of a CSRF token is for programmers.
    if (refused && error.status === 403) return this.#say("expired", "reload");
    this.#tell((refused && error.message) || this.#phrase(otherwise), action);
  }

  /** @param {string} name one of the phrases in the template @param {"retry" | "reload"} [action] */
  #say(name, action) {
    this.#tell(this.#phrase(name), action);
  }

  /** @param {string} sentence @param {"retry" | "reload"} [action] */
  #tell(sentence, action) {
    if (this.view.asks && !action) this.view.announce(sentence); // "not sent" keeps its place, and its button
    else this.view.tell(sentence, action);
    this.#emit("error", { error: sentence });
  }

  /** Whatever people read is in the template, where it can be translated. @param {string} name */
  #phrase(name) {
    return find(this.root, ".durable-chat__phrases").dataset[name] ?? "";
  }

  /** @param {Event} event */
  #click({ target }) {
    const button = /** @type {HTMLElement} */ (target).closest("[data-action], [data-prompt]");
    if (!(button instanceof HTMLElement)) return;
    const { action, prompt } = button.dataset;
    if (prompt) this.composer.suggest(prompt);
    if (action === "stop") void this.cancel();
    const { id, name } = /** @type {HTMLElement | null} */ (button.closest("[data-name]"))?.dataset ?? {};
    if (action === "withdraw" && id) void this.withdraw(id, name);
    if (action === "retry") {
      void this.retry();
      this.composer.input.focus(); // the button goes away
    }
    if (action === "reload") location.reload();
    if (action === "jump") this.view.scrollToEnd();
  }

  /** @param {string} name @param {any} detail @returns {boolean} false when a listener prevented it */
  #emit(name, detail) {
    return this.root.dispatchEvent(
      new CustomEvent(`durable-chat:${name}`, { bubbles: true, cancelable: true, detail }),
    );
  }
}

/** @param {Message[]} messages */
function textOf(messages) {
  const parts = messages.flatMap((message) => message.parts);
  return parts.map((part) => (part.type === "text" ? part.content : "")).join(" ");
}
