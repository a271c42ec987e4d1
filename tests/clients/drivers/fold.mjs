// What the real clients show for a stream: one JSON case per line in, one JSON answer per line out.
//
//   in   {chunks, items, hydrated}   a conversation's chunks; the items of its last run; the AI SDK's UIMessages
//   out  {tanstack, aiSdk, complaints}

import { createInterface } from "node:readline"
import { StreamProcessor } from "@tanstack/ai/client"
import { readUIMessageStream, safeValidateUIMessages, uiMessageChunkSchema } from "ai"

const schema = uiMessageChunkSchema()

function tanstack(chunks) {
  const processor = new StreamProcessor()
  for (const chunk of chunks) processor.processChunk(chunk)
  return processor.getMessages()
}

async function aiSdk(items, complaints) {
  for (const item of items) {
    const checked = await schema.validate(item)
    if (!checked.success) complaints.push(`refused: ${JSON.stringify(item)}`)
  }
  const stream = new ReadableStream({
    start(controller) {
      for (const item of items) controller.enqueue(item)
      controller.close()
    },
  })
  let shown = null
  const onError = (error) => complaints.push(error.message)
  for await (const message of readUIMessageStream({ stream, onError })) shown = message
  return shown
}

for await (const line of createInterface({ input: process.stdin })) {
  const { chunks, items, hydrated } = JSON.parse(line)
  const complaints = []
  const answer = { tanstack: tanstack(chunks), aiSdk: await aiSdk(items, complaints), complaints }
  const checked = await safeValidateUIMessages({ messages: hydrated })
  if (!checked.success) complaints.push(checked.error.message)
  process.stdout.write(JSON.stringify(answer) + "\n")
}
