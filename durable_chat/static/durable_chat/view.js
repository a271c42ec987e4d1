/**
 * Messages on the page. Every element is a clone of a `<template>` that the server rendered with the very
 * templates of the messages before it, and whatever is said is set as text, never as HTML.
 *
 * Elements are found by `data-` attributes and roles where hosts may restyle, by class where they are ours.
 *
 * @typedef {import("./parts.js").Message} Message
 * @typedef {import("./parts.js").Part} Part
 * @typedef {{element: HTMLElement, parts: Map<Part, HTMLElement>}} Drawn
 */

/** This close to the end, in CSS pixels, is at the end. */
const NEAR = 48;
/** By then a screen reader has taken what it was given to say, in milliseconds. */
const SPOKEN_AFTER = 5_000;

export class View {
  /** @type {Map<Message, Drawn>} */
  #drawn = new Map();
  /** @type {HTMLElement | undefined} */
  #streaming;
  /** Whether the reader stands at the end, and so wants to stay there. */
  #pinned = true;

  /** @param {HTMLElement} root the element of class `durable-chat` */
  constructor(root) {
    this.root = root;
    this.log = find(root, "[role=log]");
    this.list = find(root, "[role=list]");
    this.jump = find(root, "[data-action=jump]");
  }

  /**
   * The messages that are on the page: what the server rendered, and what was added since if the page comes
   * out of a cache.
   */
  adopt() {
    for (const element of children(this.list)) {
      const parts = new Map(children(partsOf(element)).map((part) => [readPart(part), part]));
      const { id = "", role, pending, ended, authorId, author: name = "" } = element.dataset;
      const author = authorId === undefined ? undefined : { id: authorId, name };
      const message = /** @type {Message} */ ({ id, role, author, ended, parts: [...parts.keys()] });
      message.pending = pending !== undefined;
      this.#drawn.set(message, { element, parts });
      element.removeAttribute("data-streaming");
    }
    return [...this.#drawn.keys()];
  }

  /**
   * Bring a message's element up to date; a new message goes to the end.
   *
   * @param {Message} message
   * @returns {HTMLElement}
   */
  draw(message) {
    const { element, parts } = this.#drawn.get(message) ?? this.#add(message);
    element.dataset.id = message.id;
    element.toggleAttribute("data-pending", message.pending === true);
    if (message.ended) element.dataset.ended = message.ended;
    this.#sign(element, message);
    for (const [part, shown] of parts) {
      if (message.parts.includes(part)) continue;
      shown.remove();
      parts.delete(part);
    }
    for (const part of message.parts) {
      if (!parts.has(part)) {
        parts.set(part, this.#clone("part", part.type));
        partsOf(element).append(/** @type {HTMLElement} */ (parts.get(part)));
      }
      fill(/** @type {HTMLElement} */ (parts.get(part)), part);
    }
    return element;
  }

  /** Show exactly these, in this order. @param {Message[]} messages */
  redraw(messages) {
    for (const [message, { element }] of this.#drawn) {
      if (messages.includes(message)) continue;
      element.remove();
      this.#drawn.delete(message);
    }
    for (const message of messages) this.list.append(this.draw(message));
  }

  /**
   * Mark the message that is being written, and keep screen readers from reading it word by word: the log is
   * silent while it is busy, and `announce` tells the whole answer once.
   *
   * @param {boolean} busy
   * @param {Message | null} answer
   */
  write(busy, answer) {
    const element = answer ? this.#drawn.get(answer)?.element : undefined;
    if (element !== this.#streaming) this.#streaming?.removeAttribute("data-streaming");
    element?.setAttribute("data-streaming", "");
    this.#streaming = element;
    this.root.toggleAttribute("data-busy", busy);
    this.log.setAttribute("aria-busy", String(busy));
    this.log.setAttribute("aria-live", busy ? "off" : "polite");
    find(this.root, ".durable-chat__typing").hidden = !busy || answer?.parts.at(-1)?.type === "text";
  }

  /** Say it to screen readers, once: what has been said is no part of the page. @param {string} sentence */
  announce(sentence) {
    const announcer = find(this.root, ".durable-chat__announcer");
    const said = document.createTextNode(sentence);
    announcer.replaceChildren(said);
    setTimeout(() => said.remove(), SPOKEN_AFTER);
  }

  /** Show the children of this kind whose `data-when` is `state`. @param {string} parent @param {string} state */
  show(parent, state) {
    for (const element of children(find(this.root, parent))) element.hidden = element.dataset.when !== state;
  }

  /** Whether there is a sentence above the composer that something can be done about. */
  get asks() {
    return this.root.querySelector(".durable-chat__notice:not([hidden]) > button:not([hidden])") !== null;
  }

  /**
   * A sentence above the composer, with at most one thing to do about it. Empty takes it away.
   *
   * @param {string} sentence
   * @param {"retry" | "reload"} [action]
   */
  tell(sentence, action) {
    const notice = find(this.root, ".durable-chat__notice");
    notice.hidden = !sentence;
    find(notice, "[data-slot=notice]").textContent = sentence;
    for (const button of notice.querySelectorAll("button")) button.hidden = button.dataset.action !== action;
  }

  /** @param {AbortSignal} signal */
  keepScrolled(signal) {
    const look = () => this.#look();
    this.log.addEventListener("scroll", look, { signal, passive: true });
    this.log.addEventListener("toggle", look, { signal, capture: true }); // what is unfolded pushes the end away
    const observer = new ResizeObserver(() => this.settle());
    observer.observe(this.log);
    signal.addEventListener("abort", () => observer.disconnect());
    this.settle();
  }

  /** After any change: stay at the end, for whoever was there. */
  settle() {
    if (this.#pinned) this.log.scrollTop = this.log.scrollHeight;
    this.jump.hidden = this.#pinned;
  }

  scrollToEnd() {
    this.#pinned = true;
    if (document.activeElement === this.jump) this.log.focus({ preventScroll: true }); // the button goes away
    this.settle();
  }

  /** Name whoever wrote it, if that is not the one who reads it. @param {HTMLElement} element @param {Message} message */
  #sign(element, { role, author, pending }) {
    if (role !== "user" || pending) return;
    const { user, unsigned = "" } = this.root.dataset;
    const name = author ? (author.id === user ? "" : author.name) : unsigned;
    if (author) element.dataset.authorId = author.id;
    if (!name || element.dataset.author === name) return;
    element.dataset.author = name;
    find(element, ".durable-chat__author").textContent = name;
  }

  #look() {
    const { scrollHeight, scrollTop, clientHeight } = this.log;
    this.#pinned = scrollHeight - scrollTop - clientHeight < NEAR;
    this.jump.hidden = this.#pinned;
  }

  /** @param {Message} message @returns {Drawn} */
  #add(message) {
    const drawn = { element: this.#clone("message", message.role), parts: new Map() };
    this.#drawn.set(message, drawn);
    this.list.append(drawn.element);
    return drawn;
  }

  /** @param {"message" | "part"} kind @param {string} name @returns {HTMLElement} */
  #clone(kind, name) {
    const template = /** @type {HTMLTemplateElement} */ (find(this.root, `template[data-${kind}="${name}"]`));
    return /** @type {HTMLElement} */ (template.content.firstElementChild?.cloneNode(true));
  }
}

/** @param {ParentNode} parent @param {string} selector @returns {HTMLElement} */
export function find(parent, selector) {
  const found = parent.querySelector(selector);
  if (!found) throw new Error(`durable-chat: its template has no ${selector}.`);
  return /** @type {HTMLElement} */ (found);
}

/** @param {HTMLElement} parent */
function children(parent) {
  return /** @type {HTMLElement[]} */ ([...parent.children]);
}

/** @param {HTMLElement} message */
function partsOf(message) {
  return find(message, ".durable-chat__parts");
}

/** The elements that hold a part's texts, by the names of its fields. @param {HTMLElement} element */
function slots(element) {
  const inner = /** @type {NodeListOf<HTMLElement>} */ (element.querySelectorAll("[data-slot]"));
  return element.dataset.slot ? [element] : [...inner];
}

/** The inverse of `fill`. @param {HTMLElement} element @returns {Part} */
function readPart(element) {
  const { part: type, id, state } = element.dataset;
  const texts = slots(element).map((slot) => [slot.dataset.slot, slot.textContent]);
  return /** @type {any} */ ({ type, id, state, ...Object.fromEntries(texts) });
}

/** @param {HTMLElement} element @param {any} part */
function fill(element, part) {
  if (part.id) element.dataset.id = part.id;
  if (part.state) element.dataset.state = part.state;
  if (/^https?:/.test(part.url)) element.setAttribute("href", part.url);
  for (const slot of slots(element)) grow(slot, part[/** @type {string} */ (slot.dataset.slot)]);
}

/**
 * Texts only ever grow, so what is new is appended: an answer costs its length, not its square.
 *
 * @param {HTMLElement} slot
 * @param {string} text
 */
function grow(slot, text) {
  const node = slot.firstChild;
  if (!(node instanceof Text)) slot.textContent = text;
  else if (node.length < text.length) node.appendData(text.slice(node.length));
}
