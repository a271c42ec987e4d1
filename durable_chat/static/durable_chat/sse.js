/** Server-Sent Events out of a response's bytes. Pure: no DOM, no network, no clock. */

/**
 * Lines end at CR, LF or CRLF and nowhere else (JSON may hold a raw U+2028); comments, `id` and `retry` are
 * skipped; an event whose blank line did not arrive never happened.
 *
 * @param {ReadableStream<Uint8Array>} body
 * @param {() => void} [heard] called for every piece that arrives, comments included
 * @returns {AsyncGenerator<{type: string, data: string}>}
 */
export async function* events(body, heard = () => {}) {
  let type = "";
  /** @type {string[]} */
  let data = [];
  for await (const line of lines(body, heard)) {
    if (line === "") {
      if (data.length) yield { type: type || "message", data: data.join("\n") };
      type = "";
      data = [];
    } else if (line.startsWith("data:")) data.push(valueOf(line));
    else if (line.startsWith("event:")) type = valueOf(line);
  }
}

/**
 * @param {ReadableStream<Uint8Array>} body
 * @param {() => void} heard
 * @returns {AsyncGenerator<string>}
 */
async function* lines(body, heard) {
  const reader = body.getReader(); // not every browser can iterate a stream
  const decoder = new TextDecoder();
  let rest = "";
  let torn = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      let text = decoder.decode(value, { stream: true });
      if (torn && text.startsWith("\n")) text = text.slice(1); // a CRLF across two pieces is one line end
      else if (!text) continue;
      torn = text.endsWith("\r");
      // Only what is new is searched: a long line in many pieces costs its length, not its square.
      const whole = text.split(/\r\n|\n|\r/);
      whole[0] = rest + whole[0];
      rest = /** @type {string} */ (whole.pop());
      yield* whole;
    }
  } finally {
    await reader.cancel().catch(() => {}); // a body that is broken already needs no cancelling
  }
}

/** @param {string} line */
function valueOf(line) {
  const value = line.slice(line.indexOf(":") + 1);
  return value.startsWith(" ") ? value.slice(1) : value;
}
