/** The resumable reader against a server that cuts connections wherever it hurts. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { afterEach, beforeEach, describe, test } from "node:test";

import { Refused } from "../../durable_chat/static/durable_chat/requests.js";
import { StreamReader, delayBefore } from "../../durable_chat/static/durable_chat/stream.js";

const WORDS = Array.from({ length: 40 }, (_, number) => `w${number}é🙂 `);
const TAIL = String(WORDS.length);

/** What the stream holds after an offset (the number of words before it), as one live read says it. */
function frames(offset, { closed = false } = {}) {
  const said = [];
  for (let at = Number(offset); at < WORDS.length; at += 2) {
    const next = String(Math.min(at + 2, WORDS.length));
    said.push(`event: data\ndata: ${JSON.stringify(WORDS.slice(at, Number(next)).map((word) => ({ type: "W", word })))}\n\n`);
    said.push(control(next, { closed: closed && next === TAIL }));
  }
  if (said.length === 0) said.push(control(TAIL, { closed }));
  return Buffer.from(said.join(""));
}

function control(next, { closed }) {
  const value = { streamNextOffset: next, streamCursor: `c${next}`, ...(closed && { streamClosed: true }) };
  return `event: control\ndata: ${JSON.stringify(value)}\n\n`;
}

function stream(response) {
  response.writeHead(200, { "content-type": "text/event-stream" });
  return response;
}

let server, base, requests, answers, reader;

/** Each request is answered by the next of `answers`; the last one answers all that follow. */
beforeEach(async () => {
  requests = [];
  server = createServer((request, response) => {
    const query = new URL(request.url, base).searchParams;
    requests.push(query);
    const answer = answers.length > 1 ? answers.shift() : answers[0];
    answer(response, query);
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  base = `http://127.0.0.1:${server.address().port}`;
});

afterEach(async () => {
  reader?.stop();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

/** A reader, what it has delivered, what it has been through, and a way to wait for either. */
function read(options = {}, onWords = () => {}) {
  const seen = { words: [], states: [], delays: [], reason: undefined };
  const waiting = [];
  const check = () => waiting.forEach(({ done, resolve }) => done() && resolve());
  reader = new StreamReader({
    url: `${base}/read?id=7`,
    offset: "0",
    delay: (...reasons) => void seen.delays.push(reasons) || 0,
    onBatch: (chunks) => {
      seen.words.push(...chunks.map(({ word }) => word));
      onWords(seen.words);
      check();
    },
    onState: (state, reason) => (seen.states.push(state), (seen.reason = reason), check()),
    ...options,
  });
  const until = (done) => new Promise((resolve) => (waiting.push({ done, resolve }), check()));
  reader.start();
  return { seen, until };
}

const all = (seen) => () => seen.words.length >= WORDS.length;

describe("exactly once", () => {
  const whole = frames("0").length;
  for (const size of [1, 20, 33, 47, 75, 90, 127, 300]) {
    test(`connections that break after ${size} more bytes each time`, async () => {
      let allowed = size;
      answers = [
        (response, query) => {
          const body = frames(query.get("offset")).subarray(0, allowed);
          allowed = Math.min(allowed + size, whole);
          stream(response).write(body, () => response.destroy());
        },
      ];
      const { seen, until } = read();
      await until(all(seen));
      assert.deepEqual(seen.words, WORDS);
    });
  }

  test("connections that end between data and control", async () => {
    answers = [
      (response, query) => {
        const body = frames(query.get("offset")).toString();
        const second = body.indexOf("event: data", 1);
        stream(response).end(second > 0 ? body.slice(0, body.indexOf("event: control", second)) : body);
      },
    ];
    const { seen, until } = read();
    await until(all(seen));
    assert.deepEqual(seen.words, WORDS);
  });

  test("stopped in the middle of a batch of batches, and started again", async () => {
    answers = [(response, query) => stream(response).write(frames(query.get("offset")))];
    const { seen, until } = read({}, (words) => {
      if (words.length !== 10) return;
      reader.stop();
      reader.start();
    });
    await until(all(seen));
    assert.deepEqual(seen.words, WORDS);
    assert.equal(requests.length, 2);
  });

  test("a batch that its reader cannot take is not taken twice", async (t) => {
    const errors = [];
    globalThis.reportError = (error) => errors.push(error.message);
    t.after(() => delete globalThis.reportError);
    answers = [live];
    const { seen, until } = read({}, (words) => {
      if (words.length === 10) throw new Error("a listener's mistake");
    });
    await until(all(seen));
    assert.deepEqual(seen.words, WORDS);
    assert.deepEqual(errors, ["a listener's mistake"]);
  });
});

test("a request names where it goes on, and keeps the rest of the address", async () => {
  answers = [(response) => stream(response).end(frames("0").subarray(0, 400)), live];
  const { seen, until } = read();
  await until(all(seen));
  assert.deepEqual(Object.fromEntries(requests[0]), { id: "7", offset: "0", live: "sse" });
  const { offset, ...rest } = Object.fromEntries(requests[1]);
  assert.notEqual(offset, "0");
  assert.deepEqual(rest, { id: "7", live: "sse", cursor: `c${offset}` });
});

test("an offset of hydration is where the reading begins", async () => {
  answers = [live];
  const { seen, until } = read({ offset: "30" });
  await until(() => seen.words.length === 10);
  assert.deepEqual(seen.words, WORDS.slice(30));
});

describe("what does not get better by asking again", () => {
  const refusals = {
    "a conversation that is gone": [404, "application/json", '{"error": "There is no such conversation."}', 404],
    "a page that asks to sign in": [200, "text/html", "<h1>Sign in</h1>", 401],
    "an error without a sentence": [403, "text/html", "<h1>Forbidden</h1>", 403],
  };
  for (const [name, [status, type, body, expected]] of Object.entries(refusals)) {
    test(name, async () => {
      answers = [(response) => response.writeHead(status, { "content-type": type }).end(body)];
      const { seen, until } = read();
      await until(() => seen.states.includes("stopped"));
      assert.ok(seen.reason instanceof Refused);
      assert.equal(seen.reason.status, expected);
      assert.equal(seen.reason.message, status === 404 ? "There is no such conversation." : "");
      assert.equal(requests.length, 1);
      assert.deepEqual(seen.delays, []);
    });
  }

  test("a stream that is closed has been read", async () => {
    answers = [(response, query) => stream(response).end(frames(query.get("offset"), { closed: true }))];
    const { seen, until } = read();
    await until(() => seen.states.includes("stopped"));
    assert.deepEqual(seen.words, WORDS);
    assert.equal(seen.reason, undefined);
    assert.equal(requests.length, 1);
  });
});

describe("what does", () => {
  test("a server that is away says when to come back", async () => {
    answers = [
      (response) => response.writeHead(503, { "retry-after": "7" }).end("{}"),
      (response) => response.writeHead(429).end(),
      (response) => response.destroy(),
      (response) => stream(response).end(),
      live,
    ];
    const { seen, until } = read();
    await until(all(seen));
    assert.deepEqual(seen.delays, [[1, 7], [2, 0], [3, 0], [4, 0]]);
    assert.deepEqual(seen.states.filter((state) => state !== "connecting"), ["waiting", "waiting", "waiting", "waiting", "live"]);
  });

  test("one drop is not worth a word", async () => {
    answers = [(response) => stream(response).write(frames("0").subarray(0, 400), () => response.destroy()), live];
    const { seen, until } = read();
    await until(all(seen));
    assert.deepEqual(seen.delays, [[0, 0]]);
    assert.deepEqual(seen.states, ["live"]);
  });

  test("a tab that rests asks for nothing until it is woken", async () => {
    answers = [live];
    let hidden = true;
    const { seen, until } = read({ mayRest: () => hidden });
    await until(() => seen.states.includes("resting"));
    assert.equal(requests.length, 0);
    hidden = false;
    reader.wake();
    await until(all(seen));
    assert.equal(requests.length, 1);
  });

  test("a pause ends when the network is back", async () => {
    answers = [(response) => response.destroy(), live];
    const { seen, until } = read({ delay: () => 2 ** 30 });
    await until(() => seen.states.includes("waiting"));
    reader.wake();
    await until(all(seen));
  });

  test("a silence is not trusted by who wakes up", async (t) => {
    answers = [(response) => stream(response).write(": hello\n\n"), live];
    let now = Date.now();
    t.mock.method(Date, "now", () => now);
    const { seen, until } = read();
    await once(server, "request");
    reader.wake();
    assert.equal(reader.state, "connecting");
    now += 11_000;
    reader.wake();
    await until(all(seen));
    assert.equal(requests.length, 2);
  });

  test("a silence that lasts longer than any window is a dead connection", async (t) => {
    answers = [(response) => stream(response).write(": hello\n\n"), live];
    let now = Date.now();
    t.mock.method(Date, "now", () => now);
    t.mock.timers.enable({ apis: ["setInterval"] });
    const { seen, until } = read();
    await once(server, "request");
    now += 91_000;
    t.mock.timers.tick(10_000);
    await until(all(seen));
    assert.equal(requests.length, 2);
  });

  test("a pause that the server asked for does not", async (t) => {
    t.mock.timers.enable({ apis: ["setTimeout"] });
    answers = [(response) => response.writeHead(503, { "retry-after": "60" }).end(), live];
    const { seen, until } = read({ delay: delayBefore });
    await until(() => seen.states.includes("waiting"));
    reader.wake();
    t.mock.timers.tick(59_000);
    await new Promise(setImmediate);
    assert.equal(seen.states.at(-1), "waiting");
    t.mock.timers.tick(17_000);
    await until(all(seen));
  });
});

test("pauses grow to a limit, and half of each is chance", () => {
  for (let failures = 0; failures < 40; failures += 1) {
    const delay = delayBefore(failures, 0);
    const ceiling = Math.min(15_000, 500 * 2 ** failures);
    assert.ok(delay >= ceiling / 2 && delay <= ceiling, `${failures}: ${delay}`);
  }
  const asked = delayBefore(9, 20);
  assert.ok(asked >= 20_000 && asked <= 25_000);
});

function live(response, query) {
  stream(response).write(frames(query.get("offset")));
}
