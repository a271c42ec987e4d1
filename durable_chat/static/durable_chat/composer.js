/** Where a message is written. Enter sends, Shift and Enter begin a new line. */

import { find } from "./view.js";

export class Composer {
  /** @param {HTMLElement} root the element of class `durable-chat` @param {() => void} onSend */
  constructor(root, onSend) {
    this.form = find(root, "form");
    this.field = find(root, ".durable-chat__field");
    this.input = /** @type {HTMLTextAreaElement} */ (find(root, "textarea"));
    this.sendButton = /** @type {HTMLButtonElement} */ (find(root, "[type=submit]"));
    this.stopButton = find(root, "[data-action=stop]");
    this.hint = find(root, ".durable-chat__hint");
    this.onSend = onSend;
  }

  get text() {
    return this.input.value;
  }

  set text(text) {
    this.input.value = text;
    this.#fit();
  }

  /** @param {string} text */
  suggest(text) {
    this.text = text;
    this.input.focus();
  }

  /** @param {AbortSignal} signal */
  listen(signal) {
    this.form.addEventListener("submit", (event) => this.#submit(event), { signal });
    this.input.addEventListener("keydown", (event) => this.#key(event), { signal });
    this.input.addEventListener("input", () => this.#fit(), { signal });
    this.sendButton.disabled = false; // before this, it could only have loaded the page anew
    this.#fit();
  }

  /**
   * The hint says what sending does now; while it does nothing, the button stays in reach of the keyboard,
   * which `disabled` would take from whoever stands on it.
   *
   * @param {"idle" | "busy" | "queue" | "interrupt"} state
   * @param {boolean} stoppable
   */
  write(state, stoppable) {
    this.sendButton.setAttribute("aria-disabled", String(state === "busy"));
    for (const element of /** @type {HTMLElement[]} */ ([...this.hint.children])) {
      element.hidden = element.dataset.when !== state;
    }
    const left = !stoppable && document.activeElement === this.stopButton;
    this.stopButton.hidden = !stoppable;
    if (left) this.input.focus();
  }

  /** @param {SubmitEvent} event */
  #submit(event) {
    event.preventDefault();
    this.onSend();
    this.input.focus();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    // An Enter that ends a composition belongs to the input method; Safari says so only by the old code 229.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    this.onSend();
  }

  /** The field grows with a copy of its text (see chat.css): no inline style, which a strict policy forbids. */
  #fit() {
    this.field.dataset.text = this.input.value;
  }
}
