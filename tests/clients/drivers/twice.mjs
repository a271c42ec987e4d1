// The same message posted twice at once, as an impatient finger or a retrying proxy does.

import { readUIMessageStream } from 'ai'
import { transport } from './ai_sdk.mjs'
import { args, drive } from './support.mjs'
import { connection, openTab } from './tanstack.mjs'

async function lastOf(stream) {
  let last
  for await (const message of readUIMessageStream({ stream })) last = message
  return last
}

async function byAiSdk(prompt) {
  const messages = [{ id: 'the-message', role: 'user', parts: [{ type: 'text', text: prompt }] }]
  const send = () => transport().sendMessages({ trigger: 'submit-message', chatId: args.id, messages })
  const streams = await Promise.all([send(), send()])
  return Promise.all(streams.map(lastOf))
}

async function byTanStack(prompt) {
  const messages = [{ id: 'the-message', role: 'user', parts: [{ type: 'text', content: prompt }] }]
  const send = () => connection().send(messages, {})
  await Promise.all([send(), send()])
  return []
}

await drive(async ({ prompt, by }) => {
  const tab = await openTab()
  const answers = await (by === 'ai-sdk' ? byAiSdk(prompt) : byTanStack(prompt))
  await tab.ended(1)
  return { answers, tab: tab.result() }
})
