/** Chunks into messages: what they say, and that it does not matter where one stops and goes on. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { Fold } from "../../durable_chat/static/durable_chat/fold.js";

const started = (runId = "r") => ({ type: "RUN_STARTED", threadId: "c", runId });
const finished = (runId = "r") => ({ type: "RUN_FINISHED", threadId: "c", runId });
const failed = (message, code) => ({ type: "RUN_ERROR", message, code, metadata: { tanstack: { runId: "r" } } });
const start = (messageId, role = "assistant") => ({ type: "TEXT_MESSAGE_START", messageId, role });
const content = (messageId, delta) => ({ type: "TEXT_MESSAGE_CONTENT", messageId, delta });
const end = (messageId, ended) => ({
  type: "TEXT_MESSAGE_END", messageId, ...(ended && { metadata: { durable_chat: { ended } } }),
});
const echo = (id, text) => [start(id, "user"), content(id, text), end(id)];
const think = (messageId, delta) => ({ type: "REASONING_MESSAGE_CONTENT", messageId, delta });
const call = (toolCallId, toolCallName, parentMessageId) => ({
  type: "TOOL_CALL_START", toolCallId, toolCallName, parentMessageId,
});
const args = (toolCallId, delta) => ({ type: "TOOL_CALL_ARGS", toolCallId, delta });
const called = (toolCallId, input) => ({ type: "TOOL_CALL_END", toolCallId, metadata: { tanstack: { input } } });
const result = (toolCallId, text, state) => ({
  type: "TOOL_CALL_RESULT", toolCallId, messageId: "a", content: text, metadata: { tanstack: { state } },
});

/** A message in short: its role, its parts as text, and how it ended, if not well. */
function short({ role, parts, ended }) {
  const written = {
    text: (part) => part.content,
    thinking: (part) => `(${part.content})`,
    "tool-call": (part) => `${part.name}${part.arguments} ${part.state} ${part.result}`,
    file: (part) => `<${part.name}>`,
  };
  return [role, ...parts.map((part) => written[part.type](part)), ...(ended ? [`[${ended}]`] : [])];
}

const CASES = {
  "a question and its answer": [
    [...echo("u", "hi"), started(), start("a"), content("a", "w0 "), content("a", "w1 "), end("a"), finished()],
    [["user", "hi"], ["assistant", "w0 w1 "]],
  ],
  "text without a start": [[started(), content("a", "x")], [["assistant", "x"]]],
  "an older server's content": [
    [started(), { type: "TEXT_MESSAGE_CONTENT", messageId: "a", content: "x" }],
    [["assistant", "x"]],
  ],
  "thoughts of a message that has begun": [
    [started(), start("a"), think("t", "hm "), think("t", "so"), content("a", "x"), finished()],
    [["assistant", "(hm so)", "x"]],
  ],
  "thoughts of nobody yet": [[started(), think("t", "hm")], [["assistant", "(hm)"]]],
  "thoughts of two steps are two parts": [
    [
      started(), { type: "STEP_STARTED", stepName: "1" }, think("t", "one"), { type: "STEP_FINISHED", stepName: "1" },
      { type: "STEP_STARTED", stepName: "2" }, think("t", "two"),
    ],
    [["assistant", "(one)", "(two)"]],
  ],
  "a tool call between two texts": [
    [
      started(), start("a"), content("a", "look: "), call("k", "weather", "a"), args("k", '{"city":'), args("k", '"B"}'),
      called("k", { city: "B" }), result("k", "21"), content("a", "done"), finished(),
    ],
    [["assistant", "look: ", 'weather{"city":"B"} done 21', "done"]],
  ],
  "a tool call whose input comes at its end": [
    [started(), start("a"), call("k", "f"), called("k", { n: 1 }), content("a", "x")],
    [["assistant", 'f{"n":1} running ', "x"]],
  ],
  "a tool call that fails": [
    [started(), call("k", "f", "a"), called("k"), result("k", "no", "output-error")],
    [["assistant", "f failed no"]],
  ],
  "a call that starts twice is one": [[started(), call("k", "f", "a"), call("k", "f", "a")], [["assistant", "f running "]]],
  "an old id in a newer message is another call": [
    [start("a"), call("k", "f"), result("k", "1"), start("b"), call("k", "f"), result("k", "2")],
    [["assistant", "f done 1"], ["assistant", "f done 2"]],
  ],
  "two messages in one run": [
    [started(), start("a"), content("a", "1"), end("a"), start("b"), content("b", "2"), finished()],
    [["assistant", "1"], ["assistant", "2"]],
  ],
  "a failure stands after what there is": [
    [started(), start("a"), content("a", "half"), end("a"), failed("It broke.", "provider_failed")],
    [["assistant", "half"], ["error", "It broke."]],
  ],
  "a stop is a note": [[started(), failed("Stopped.", "stopped")], [["note", "Stopped."]]],
  "asking again takes the failure away": [
    [...echo("u", "hi"), started(), failed("It broke."), started("r2"), start("b"), content("b", "x"), finished("r2")],
    [["user", "hi"], ["assistant", "x"]],
  ],
  "a failure is told until the next run, and then by its message": [
    [started(), start("a"), end("a", "failed"), failed("It broke."), ...echo("u", "hi"), started("r2")],
    [["assistant", "[failed]"], ["user", "hi"]],
  ],
  "a snapshot says how answers ended": [
    [
      {
        type: "MESSAGES_SNAPSHOT",
        messages: [
          { id: "a", role: "assistant", content: "half", metadata: { durable_chat: { ended: "stopped" } } },
          { id: "b", role: "assistant", content: "whole", metadata: {} },
        ],
      },
    ],
    [["assistant", "half", "[stopped]"], ["assistant", "whole"]],
  ],
  "a snapshot of UI messages replaces everything": [
    [
      ...echo("u", "old"),
      {
        type: "MESSAGES_SNAPSHOT",
        messages: [
          { id: "x", role: "user", parts: [{ type: "text", content: "new" }, { type: "image", source: { value: "d" } }] },
          {
            id: "y", role: "assistant",
            parts: [
              { type: "tool-call", id: "k", name: "f", arguments: "{}", state: "complete" },
              { type: "tool-result", toolCallId: "k", content: "7", state: "complete" },
            ],
          },
        ],
      },
      started(), start("z"), content("z", "on"),
    ],
    [["user", "new", "<image>"], ["assistant", "f{} done 7"], ["assistant", "on"]],
  ],
  "a snapshot in AG-UI's own words": [
    [
      {
        type: "MESSAGES_SNAPSHOT",
        messages: [
          { id: "s", role: "developer", content: "be brief" },
          { id: "x", role: "user", content: "new" },
          { id: "y", role: "assistant", toolCalls: [{ id: "k", function: { name: "f", arguments: "{}" } }] },
          { id: "t", role: "tool", toolCallId: "k", content: "7" },
        ],
      },
    ],
    [["system", "be brief"], ["user", "new"], ["assistant", "f{} done 7"]],
  ],
  "what is unknown, or for nobody here, changes nothing": [
    [
      { type: "CUSTOM", name: "x", value: 1 }, { type: "STATE_SNAPSHOT", snapshot: {} }, { type: "NEWS" },
      args("nobody", "{}"), result("nobody", "x"), called("nobody"),
    ],
    [],
  ],
};

describe("fold", () => {
  for (const [name, [chunks, expected]] of Object.entries(CASES)) {
    test(name, () => {
      const fold = new Fold();
      for (const chunk of chunks) fold.apply(chunk);
      assert.deepEqual(fold.messages.map(short), expected);
    });
  }
});

describe("a fold that goes on from another's messages", () => {
  for (const [name, [chunks, expected]] of Object.entries(CASES)) {
    test(name, () => {
      for (let cut = 0; cut <= chunks.length; cut += 1) {
        const before = new Fold();
        for (const chunk of chunks.slice(0, cut)) before.apply(chunk);
        const messages = structuredClone(before.messages);
        const after = new Fold({ messages, activeRun: before.activeRun });
        // Which step is open is not seen in messages.
        if (chunks.slice(0, cut).some(({ type }) => type === "STEP_STARTED")) continue;
        for (const chunk of chunks.slice(cut)) after.apply(chunk);
        assert.deepEqual(after.messages.map(short), expected, `cut at ${cut}`);
      }
    });
  }
});

describe("a message that is expected", () => {
  test("is confirmed by its echo and not doubled", () => {
    const fold = new Fold();
    const message = fold.expect("u", "hi");
    assert.equal(message.pending, true);
    for (const chunk of echo("u", "hi")) assert.equal(fold.apply(chunk) ?? message, message);
    assert.equal(message.pending, false);
    assert.deepEqual(fold.messages.map(short), [["user", "hi"]]);
  });

  test("goes when it is forgotten, and comes back with a late echo", () => {
    const fold = new Fold();
    const { revision } = fold;
    fold.forget(fold.expect("u", "hi"));
    assert.deepEqual(fold.messages, []);
    assert.notEqual(fold.revision, revision);
    for (const chunk of echo("u", "hi")) fold.apply(chunk);
    assert.deepEqual(fold.messages.map(short), [["user", "hi"]]);
  });

  test("outlives a snapshot that does not know it, once", () => {
    const fold = new Fold();
    fold.expect("u", "hi");
    fold.apply({ type: "MESSAGES_SNAPSHOT", messages: [{ id: "x", role: "user", content: "before" }] });
    fold.apply({ type: "MESSAGES_SNAPSHOT", messages: [{ id: "x", role: "user", content: "before" }] });
    assert.deepEqual(fold.messages.map(short), [["user", "before"], ["user", "hi"]]);
  });
});

test("a run is active from its start to its end", () => {
  const fold = new Fold({ activeRun: "r0" });
  const chunks = [started("r1"), start("a"), finished("r1"), start("u", "user"), started("r2"), failed("x")];
  const seen = chunks.map((chunk) => {
    fold.apply(chunk);
    return [fold.activeRun, fold.answer?.id ?? null];
  });
  assert.deepEqual(seen, [["r1", null], ["r1", "a"], [null, null], [null, null], ["r2", null], [null, null]]);
});

test("the end of a run names the message that was its answer", () => {
  const fold = new Fold();
  for (const chunk of [started(), start("a"), think("t", "hm")]) fold.apply(chunk);
  assert.equal(fold.apply(finished()).id, "a");
});
