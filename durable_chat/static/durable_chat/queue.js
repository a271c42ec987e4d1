/** Messages that wait for their turn while an answer is being written, above the composer. */

import { find } from "./view.js";

export class Queue {
  /** @param {HTMLElement} root the element of class `durable-chat` */
  constructor(root) {
    this.list = find(root, ".durable-chat__queue");
    this.input = find(root, "textarea");
    this.template = /** @type {HTMLTemplateElement} */ (find(root, "template[data-waiting]"));
  }

  get empty() {
    return this.#items.length === 0;
  }

  /**
   * @param {string} id the message's
   * @param {string} text
   * @param {string} [name] by which it is withdrawn; without one it is on its way to the server
   */
  add(id, text, name) {
    const item = /** @type {HTMLElement} */ (this.template.content.firstElementChild?.cloneNode(true));
    Object.assign(item.dataset, { id, name: name ?? id });
    item.toggleAttribute("data-pending", name === undefined);
    const shown = find(item, "[data-slot=text]");
    Object.assign(shown, { id: shown.id + (name ?? id), textContent: text, title: text });
    item.querySelector("button")?.setAttribute("aria-describedby", shown.id);
    this.list.append(item);
    this.#show();
  }

  /** The server has it. @param {string} id */
  confirm(id) {
    this.#find(id)?.removeAttribute("data-pending");
  }

  /** @param {string} id @returns {string} its text, or "" when it does not wait */
  remove(id) {
    const item = this.#find(id);
    const left = item?.contains(document.activeElement);
    item?.remove();
    this.#show();
    if (left) this.input.focus();
    return item ? find(item, "[data-slot=text]").textContent ?? "" : "";
  }

  /** Drop those whose turn has come. @param {(id: string) => unknown} said whether the transcript has it */
  settle(said) {
    for (const { dataset } of this.#items) if (said(dataset.id ?? "")) this.remove(dataset.id ?? "");
  }

  /** Show what the server says that waits. @param {{runId: string, message: any}[]} queued */
  sync(queued) {
    for (const { dataset } of this.#items) this.remove(dataset.id ?? "");
    for (const { runId, message } of queued) this.add(message.id, textOf(message), runId);
    this.#show();
  }

  get #items() {
    return /** @type {HTMLElement[]} */ ([...this.list.children]);
  }

  /** @param {string} id */
  #find(id) {
    return this.#items.find((item) => item.dataset.id === id);
  }

  #show() {
    this.list.hidden = this.empty;
  }
}

/** @param {any} message in TanStack's shape */
function textOf({ parts }) {
  return parts.map((/** @type {any} */ part) => (part.type === "text" ? part.content : "")).join("");
}
