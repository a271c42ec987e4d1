/** Where a message is written. Enter sends, Shift+Enter begins a new line, Escape stops the answer. */

import { find } from "./view.js";

/** Where keys are on the screen there is no Shift+Enter: Enter begins a new line, and the button sends. */
const TOUCH = matchMedia("(hover: none)");

export class Composer {
  #unsent = /** @type {{id: string, text: string} | null} */ (null);

  /** @param {HTMLElement} root the element of class `durable-chat` @param {() => void} onSend */
  constructor(root, onSend) {
    this.form = find(root, "form");
    this.field = find(root, ".durable-chat__field");
    this.input = /** @type {HTMLTextAreaElement} */ (find(root, "textarea"));
    this.sendButton = /** @type {HTMLButtonElement} */ (find(root, "[type=submit]"));
    this.stopButton = find(root, "[data-action=stop]");
    this.hint = find(root, ".durable-chat__hint");
    this.onSend = onSend;
    this.draftKey = `durable-chat-draft:${root.dataset.hydrateUrl}`;
  }

  get text() {
    return this.input.value;
  }

  set text(text) {
    this.input.value = text;
    this.#changed();
  }

  /** What the server did not take. Sent again unchanged it keeps its id, so it cannot be said twice. */
  get unsent() {
    return this.#unsent;
  }

  set unsent(unsent) {
    this.#unsent = unsent;
    this.#changed();
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
    this.input.addEventListener("input", () => this.#changed(), { signal });
    this.sendButton.disabled = false; // before this, it could only have loaded the page anew
    const draft = stored((drafts) => JSON.parse(drafts.getItem(this.draftKey) ?? "null"));
    this.#unsent ??= draft?.unsent ?? null;
    this.text = this.text || draft?.text || "";
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
      const { when } = element.dataset;
      element.hidden = when !== state && !(stoppable && when === "stoppable");
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
    // A key that ends a composition belongs to the input method; Safari says so only by the old code 229.
    if (event.isComposing || event.keyCode === 229) return;
    const stops = event.key === "Escape" && !this.stopButton.hidden;
    const sends = event.key === "Enter" && !event.shiftKey && !TOUCH.matches;
    if (stops || sends) event.preventDefault(); // Escape would also close a dialog around the chat
    if (stops) this.stopButton.click();
    if (sends) this.onSend();
  }

  /**
   * The field grows with a copy of its text (see chat.css): no inline style, which a strict policy forbids. The
   * tab keeps another, so that a reload loses nothing.
   */
  #changed() {
    const { text, unsent } = this;
    this.field.dataset.text = text;
    stored((drafts) => {
      if (text) drafts.setItem(this.draftKey, JSON.stringify({ text, unsent }));
      else drafts.removeItem(this.draftKey);
    });
  }
}

/** Browsers may deny storage, or have no room: then a draft lives as long as its page. @param {(drafts: Storage) => any} use */
function stored(use) {
  try {
    return use(sessionStorage);
  } catch {
    return null;
  }
}
