// Sends a prompt and reads the answer to its end, or is gone when some words have come; regenerates if asked to.

import { Chat } from './ai_sdk.mjs'
import { drive, words } from './support.mjs'

await drive(async ({ prompt, after, regenerate = false }) => {
  const chat = new Chat()
  const sent = chat.sendMessage({ text: prompt })
  if (after) {
    await chat.until(() => words(chat.answer()) >= after)
    return chat.result()
  }
  await sent
  const first = chat.result()
  if (regenerate) await chat.regenerate()
  return { first, ...chat.result() }
})
