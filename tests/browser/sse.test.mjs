/** Server-Sent Events, whole and in every possible number of pieces. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { events } from "../../durable_chat/static/durable_chat/sse.js";

const CASES = [
  ["one event", "event: data\ndata: [1]\n\n", [["data", "[1]"]]],
  ["no name", "data: x\n\n", [["message", "x"]]],
  ["no space", "event:data\ndata:x\n\n", [["data", "x"]]],
  ["only one space goes", "data:  x\n\n", [["message", " x"]]],
  ["several lines", "data: [\ndata: 1\ndata: ]\n\n", [["message", "[\n1\n]"]]],
  ["CRLF", "event: control\r\ndata: {}\r\n\r\n", [["control", "{}"]]],
  ["CR", "event: control\rdata: {}\r\r", [["control", "{}"]]],
  ["comments, ids, retries", ": hello\nid: 7\nretry: 1\ndata: x\n: bye\n\n", [["message", "x"]]],
  ["a name without data", "event: data\n\ndata: x\n\n", [["message", "x"]]],
  ["no blank line at the end", "data: x\n\ndata: y\n", [["message", "x"]]],
  ["what JSON may hold", 'data: "\u2028 \u0085 é 🙂"\n\n', [["message", '"\u2028 \u0085 é 🙂"']]],
  ["two", "event: a\ndata: 1\n\nevent: b\ndata: 2\n\n", [["a", "1"], ["b", "2"]]],
];

for (const [name, text, expected] of CASES) {
  test(name, async () => {
    const bytes = new TextEncoder().encode(text);
    for (let size = 1; size <= bytes.length; size += 1) {
      assert.deepEqual(await read(pieces(bytes, size)), expected, `in pieces of ${size}`);
    }
  });
}

test("whoever stops reading closes the body", async () => {
  let cancelled = false;
  const body = new ReadableStream({
    pull: (controller) => controller.enqueue(new TextEncoder().encode("data: x\n\n")),
    cancel: () => void (cancelled = true),
  });
  for await (const _ of events(body)) break;
  assert.ok(cancelled);
});

function pieces(bytes, size) {
  return new ReadableStream({
    start(controller) {
      for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
      controller.close();
    },
  });
}

async function read(body) {
  const found = [];
  for await (const { type, data } of events(body)) found.push([type, data]);
  return found;
}
