/**
 * What messages are made of here, and how the forms in which servers write them become it. Pure.
 *
 * A tool's result is part of its call, and every kind of attachment is a file: the page shows no more than that.
 * The server's template renders the same shapes (`templatetags/durable_chat.py`).
 *
 * @typedef {{type: "text", content: string}} TextPart
 * @typedef {{type: "thinking", content: string, stepId?: string}} ThinkingPart
 * @typedef {"running" | "done" | "failed"} ToolState
 * @typedef {{type: "tool-call", id: string, name: string, arguments: string, state: ToolState, result: string}} ToolPart
 * @typedef {{type: "file", name: string, url: string}} FilePart
 * @typedef {TextPart | ThinkingPart | ToolPart | FilePart} Part
 * @typedef {"user" | "assistant" | "system" | "error" | "note"} Role the last two are ours: how a run ended
 * @typedef {{id: string, name: string}} Author
 * @typedef {{id: string, role: Role, parts: Part[], author?: Author, ended?: string, pending?: boolean}} Message
 *   `ended`: how, if not well: stopped, interrupted or failed; `pending`: not echoed yet
 */

/** @type {Record<string, Role>} */
const ROLES = { user: "user", system: "system", developer: "system" };

/** Chunks come from models and other people's servers: what should be text may be anything. @param {any} value */
export function text(value) {
  if (typeof value === "string") return value;
  return value === undefined || value === null ? "" : JSON.stringify(value);
}

/** @param {string} id @param {any} name @returns {ToolPart} */
export function toolCall(id, name) {
  return { type: "tool-call", id, name: text(name), arguments: "", state: "running", result: "" };
}

/** @param {Message} message @param {string} id */
export function findCall(message, id) {
  return /** @type {ToolPart | undefined} */ (
    message.parts.find((part) => part.type === "tool-call" && part.id === id)
  );
}

/**
 * The arguments of a provider that does not stream them come as a value at the call's end.
 *
 * @param {ToolPart} part
 * @param {Record<string, any>} end a TOOL_CALL_END
 */
export function complete(part, { metadata }) {
  const input = metadata?.tanstack?.input ?? undefined;
  part.arguments ||= JSON.stringify(input) ?? "";
}

/**
 * @param {ToolPart} part
 * @param {Record<string, any>} result a TOOL_CALL_RESULT or a tool-result part
 */
export function settle(part, { content, state, metadata }) {
  const failed = [state, metadata?.tanstack?.state].some((word) => word === "error" || word === "output-error");
  part.result = text(content);
  part.state = failed ? "failed" : "done";
}

/**
 * A snapshot's messages: TanStack's (with `parts`) or AG-UI's (with `content`, `toolCalls` and `tool` messages).
 *
 * @param {any[]} messages
 * @returns {Message[]}
 */
export function fromSnapshot(messages) {
  /** @type {Message[]} */
  const result = [];
  const settleCall = (/** @type {any} */ { toolCallId, ...outcome }) => {
    const part = result.map((message) => findCall(message, toolCallId)).find(Boolean);
    if (part) settle(part, outcome);
  };
  for (const { id, role, parts, content, toolCalls = [], ...rest } of messages) {
    if (role === "tool") {
      settleCall({ content, ...rest });
      continue;
    }
    /** @type {Message} */
    const message = { id, role: ROLES[role] ?? "assistant", parts: [], author: authorOf(rest), ended: endOf(rest) };
    result.push(message);
    for (const part of parts ?? fromAgUi(content, toolCalls)) {
      if (part.type === "tool-result") settleCall(part);
      else message.parts.push(fromPart(part));
    }
  }
  return result;
}

/** Who wrote a message, as its metadata or its chunk's say. @param {any} signed @returns {Author | undefined} */
export function authorOf({ metadata }) {
  const author = metadata?.author;
  return author ? { id: text(author.id), name: text(author.name) } : undefined;
}

/** How an answer ended that is not whole, as its metadata or its last chunk's say; else "". @param {any} told */
export function endOf({ metadata }) {
  return text(metadata?.durable_chat?.ended);
}

/** @param {any} content @param {any[]} toolCalls */
function fromAgUi(content, toolCalls) {
  const written = Array.isArray(content) ? content : content ? [{ type: "text", content }] : [];
  const called = toolCalls.map((call) => ({ type: "tool-call", id: call.id, ...call.function }));
  return [...written, ...called];
}

/** @param {any} part @returns {Part} */
function fromPart(part) {
  if (part.type === "text" || part.type === "thinking") {
    return { type: part.type, content: text(part.content ?? part.text) };
  }
  if (part.type === "tool-call") {
    const call = { ...toolCall(part.id, part.name), arguments: text(part.arguments) };
    if (part.output !== undefined) settle(call, { content: part.output, state: part.state });
    return call;
  }
  const { value = "", mimeType = part.type } = part.source ?? {};
  return { type: "file", name: text(mimeType), url: text(value) };
}
