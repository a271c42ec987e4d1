// Sends a prompt whose server is killed in mid-answer, comes back until the answer has ended, and asks once more.

import { Chat } from './ai_sdk.mjs'
import { drive, hydrated, steps } from './support.mjs'
import { openTab } from './tanstack.mjs'

const RETRY_MS = 250

// The connection that broke rejects promises that nobody awaits: a page goes on, node would end.
process.on('unhandledRejection', () => {})

const pause = () => new Promise((resolve) => setTimeout(resolve, RETRY_MS))

// Whoever is told "error" reloads the page until it says that nothing is being written.
async function reloaded() {
  for (;;) {
    await pause()
    const state = await hydrated('ai-sdk').catch(() => null)
    steps.push(`reloaded ${JSON.stringify(state?.activeRun)}`)
    if (state === null) continue
    const chat = new Chat(state.messages)
    if (state.activeRun === null) return chat
    await chat.resumeStream()
  }
}

async function byAiSdk(prompt, next) {
  let chat = new Chat()
  await chat.sendMessage({ text: prompt })
  steps.push(`first answer: ${chat.status}`)
  if (chat.status === 'error') chat = await reloaded()
  await chat.sendMessage({ text: next })
  return chat.result()
}

// A tab subscribes again until it has seen the end; that does nothing while it is subscribed.
async function byTanStack(prompt, next) {
  const tab = await openTab()
  const knocking = setInterval(() => tab.client.subscribe(), RETRY_MS)
  await tab.client.sendMessage(prompt)
  steps.push(`first answer: ${tab.client.getStatus()}, ${tab.client.getConnectionStatus()}`)
  await tab.ended(1)
  steps.push('its end')
  await tab.client.sendMessage(next)
  await tab.ended(2)
  clearInterval(knocking)
  return tab.result()
}

await drive(({ by, prompt, next }) => (by === 'ai-sdk' ? byAiSdk : byTanStack)(prompt, next))
