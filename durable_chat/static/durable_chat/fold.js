/**
 * AG-UI chunks folded into messages, in place: what a reader of the whole stream knows at its offset.
 *
 * Messages and parts are objects that live on and grow, so a view can keep one element for each and append
 * what is new. No DOM here; it runs in node as it is.
 *
 * @typedef {import("./stream.js").Chunk} Chunk
 * @typedef {import("./parts.js").Message} Message
 * @typedef {import("./parts.js").ToolPart} ToolPart
 */

import { authorOf, complete, endOf, findCall, fromSnapshot, settle, text, toolCall } from "./parts.js";

export class Fold {
  /** @type {Message[]} */
  messages;
  /** The run whose answer is being written. @type {string | null} */
  activeRun;
  /** Counts the times that messages were taken away or put in others' places. */
  revision = 0;
  /** What is thought within a step is a part of its own. @type {string[]} */
  #steps = [];

  /** @param {{messages?: Message[], activeRun?: string | null}} [start] what hydration brought */
  constructor({ messages = [], activeRun = null } = {}) {
    this.messages = messages;
    this.activeRun = activeRun;
  }

  /** The message that the active run is writing. */
  get answer() {
    return this.activeRun === null ? null : this.#current ?? null;
  }

  /** @param {string | undefined} id */
  find(id) {
    return this.messages.findLast((message) => message.id === id);
  }

  /**
   * Show a user's message before the stream confirms it; the echo has the same id and takes its place.
   *
   * @param {string} id
   * @param {string} content
   */
  expect(id, content) {
    const message = this.#message(id, "user");
    message.parts = [{ type: "text", content }];
    message.pending = true;
    return message;
  }

  /** Take back a message that will not come after all. @param {Message} message */
  forget(message) {
    this.messages = this.messages.filter((other) => other !== message);
    this.revision += 1;
  }

  /**
   * @param {Chunk} chunk
   * @returns {Message | null | undefined} the message that changed; a new `revision` says that more than one did
   */
  apply(chunk) {
    switch (chunk.type) {
      case "RUN_STARTED":
        return this.#begin(chunk);
      case "RUN_FINISHED":
        return this.#end();
      case "RUN_ERROR":
        return this.#fail(chunk);
      case "TEXT_MESSAGE_START":
        return this.#start(chunk);
      case "TEXT_MESSAGE_CONTENT":
        return this.#write(chunk);
      case "TEXT_MESSAGE_END":
        return this.#close(chunk);
      case "REASONING_MESSAGE_CONTENT":
        return this.#think(chunk);
      case "STEP_STARTED":
        return void this.#steps.push(chunk.stepName);
      case "STEP_FINISHED":
        return void (this.#steps = this.#steps.filter((step) => step !== chunk.stepName));
      case "TOOL_CALL_START":
        return this.#call(chunk);
      case "TOOL_CALL_ARGS":
        return this.#tool(chunk, (part) => (part.arguments += text(chunk.delta)));
      case "TOOL_CALL_END":
        return this.#tool(chunk, (part) => complete(part, chunk));
      case "TOOL_CALL_RESULT":
        return this.#tool(chunk, (part) => settle(part, chunk));
      case "MESSAGES_SNAPSHOT":
        return this.#replace(chunk.messages);
      default:
        return null;
    }
  }

  /** The message that takes what names none: the last, if it is an assistant's. */
  get #current() {
    const last = this.messages.at(-1);
    return last?.role === "assistant" ? last : undefined;
  }

  /** @param {Chunk} chunk */
  #begin({ runId }) {
    this.activeRun = text(runId);
    // How the last run ended is told until the next begins; then its message tells it.
    for (const message of this.messages.filter(({ role }) => role === "error" || role === "note")) this.forget(message);
    return null;
  }

  /** One run at a time writes to a conversation: whatever ends a run ends the active one. */
  #end() {
    const { answer } = this;
    this.activeRun = null;
    this.#steps = [];
    return answer;
  }

  /** @param {Chunk} chunk */
  #fail({ message: sentence, code, metadata }) {
    const run = this.activeRun ?? metadata?.tanstack?.runId ?? this.messages.length;
    this.#end();
    const message = this.#message(`end-${run}`, code === "stopped" ? "note" : "error");
    message.parts = [{ type: "text", content: text(sentence) }];
    return message;
  }

  /** @param {Chunk} chunk */
  #start({ messageId, role, metadata }) {
    const message = this.#message(messageId, role === "user" || role === "system" ? role : "assistant");
    message.author = authorOf({ metadata }) ?? message.author;
    if (message.pending) message.parts = []; // the echo says it anew
    message.pending = false;
    return message;
  }

  /** @param {Chunk} chunk older servers write `content` instead of `delta` */
  #write({ messageId, delta, content }) {
    const message = this.#message(messageId, "assistant");
    const said = text(delta ?? content);
    const last = message.parts.at(-1);
    if (last?.type === "text") last.content += said;
    else if (said) message.parts.push({ type: "text", content: said });
    return message;
  }

  /** @param {Chunk} chunk */
  #close({ messageId, metadata }) {
    const message = this.find(messageId);
    if (message) message.ended = endOf({ metadata }) || message.ended;
    return message;
  }

  /** @param {Chunk} chunk */
  #think({ messageId, delta }) {
    const message = this.#current ?? this.#message(messageId, "assistant");
    const step = this.#steps.at(-1);
    let part = message.parts.findLast((part) => part.type === "thinking" && (!step || part.stepId === step));
    if (!part) message.parts.push((part = { type: "thinking", content: "", stepId: step ?? messageId }));
    if (part.type === "thinking") part.content += text(delta);
    return message;
  }

  /** @param {Chunk} chunk */
  #call({ toolCallId, toolCallName, parentMessageId }) {
    const parent = this.find(parentMessageId) ?? this.#current;
    const message = parent ?? this.#message(parentMessageId ?? toolCallId, "assistant");
    // Some models count their calls anew in every answer: a newer message makes a new call of an old id.
    const holder = this.#holder(toolCallId);
    if (!holder || this.messages.indexOf(holder) < this.messages.indexOf(message)) {
      message.parts.push(toolCall(toolCallId, toolCallName));
    }
    return message;
  }

  /** @param {Chunk} chunk @param {(part: ToolPart) => void} change */
  #tool({ toolCallId }, change) {
    const message = this.#holder(toolCallId);
    if (message) change(/** @type {ToolPart} */ (findCall(message, toolCallId)));
    return message;
  }

  /** What still waits for its echo is in no snapshot, and stays. @param {any[]} messages */
  #replace(messages) {
    const waiting = this.messages.filter(({ pending }) => pending);
    this.messages = fromSnapshot(messages);
    this.messages.push(...waiting.filter(({ id }) => !this.find(id)));
    this.revision += 1;
    return null;
  }

  /** The newest message that holds this call. @param {string} toolCallId */
  #holder(toolCallId) {
    return this.messages.findLast((message) => findCall(message, toolCallId));
  }

  /** @param {string} id @param {import("./parts.js").Role} role */
  #message(id, role) {
    const known = this.find(id);
    if (known) return known;
    /** @type {Message} */
    const message = { id, role, parts: [] };
    this.messages.push(message);
    return message;
  }
}
