// Milliseconds, each time, that opening a conversation takes: by hydration, and as the reference transport does, which
// reads the stream and folds it. Arguments: the site, the conversation, how often. Prints {hydrated, folded}.
import { createRequire } from "node:module"

const clients = createRequire(new URL("../tests/clients/", import.meta.url))
const { materializeSnapshotFromDurableStream } = clients("@durable-streams/tanstack-ai-transport")

const [base, id, times] = process.argv.slice(2)

async function hydrate() {
  const response = await fetch(`${base}/api/conversations/${id}`)
  return (await response.json()).messages
}

async function fold() {
  const readUrl = `${base}/api/chat-stream?id=${id}`
  return (await materializeSnapshotFromDurableStream({ readUrl, fetchClient: allPages })).messages
}

// It asks once, as the reference server has but one page.
async function allPages(input, init) {
  const url = new URL(input)
  const bodies = []
  for (;;) {
    const response = await fetch(url, init)
    bodies.push((await response.text()).slice(1, -1))
    if (response.headers.has("stream-up-to-date")) return new Response(`[${bodies.join(",")}]`, response)
    url.searchParams.set("offset", response.headers.get("stream-next-offset"))
  }
}

async function timed(open) {
  const begin = performance.now()
  const messages = await open()
  const taken = performance.now() - begin
  if (messages.length !== 2000) throw new Error(`${messages.length} messages`)
  return taken
}

const result = { hydrated: [], folded: [] }
for (let turn = 0; turn < Number(times); turn++) {
  result.hydrated.push(await timed(hydrate))
  result.folded.push(await timed(fold))
}
console.log(JSON.stringify(result))
