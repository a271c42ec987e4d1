/**
 * `<durable-chat>`: enlivens a conversation that `{% durable_chat %}` has rendered.
 *
 * For hosts, `send(text)`, `stop()`, `retry()` and `busy` on the element, and events that bubble:
 *
 *   durable-chat:send        before a message goes out: `message`, and `data` to add to; cancelable
 *   durable-chat:chunks      what arrived and is now shown: `chunks`, `offset`
 *   durable-chat:run         an answer has begun: `runId`; or ended: null
 *   durable-chat:connection  `state`: connecting, live, waiting, resting or stopped
 *   durable-chat:error       `error`: a sentence that is shown
 */

import { Conversation } from "./conversation.js";
import { find } from "./view.js";

export class DurableChat extends HTMLElement {
  /** @type {Conversation | undefined} */
  #conversation;

  connectedCallback() {
    this.#conversation ??= new Conversation(find(this, ".durable-chat"));
    this.#conversation.start();
  }

  disconnectedCallback() {
    this.#conversation?.stop();
  }

  /** Whether an answer is being written, or awaited. */
  get busy() {
    return this.#conversation?.busy ?? false;
  }

  /**
   * Send a text, as if it had been written. What the server does not take goes back to where it was written.
   *
   * @param {string} text
   * @returns {Promise<boolean>} whether the server has it
   */
  async send(text) {
    return (await this.#conversation?.send(text)) ?? false;
  }

  /** Ask again for an answer to the last message. @returns {Promise<boolean>} whether the server has it */
  async retry() {
    return (await this.#conversation?.retry()) ?? false;
  }

  /** End the answer that is being written; what there is of it stays. */
  async stop() {
    await this.#conversation?.cancel();
  }
}

if (!customElements.get("durable-chat")) customElements.define("durable-chat", DurableChat);
