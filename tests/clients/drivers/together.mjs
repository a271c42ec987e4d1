// A TanStack tab and an AI SDK chat on one conversation; one of them starts the run, the other watches it.

import { Chat, hydratedChat } from './ai_sdk.mjs'
import { drive, words } from './support.mjs'
import { openTab } from './tanstack.mjs'

await drive(async ({ prompt, by }) => {
  const tab = await openTab()
  let chat
  if (by === 'ai-sdk') {
    chat = new Chat()
    await chat.sendMessage({ text: prompt })
  } else {
    const sent = tab.client.sendMessage(prompt)
    await tab.until(() => words(tab.answer()) >= 2)
    chat = await hydratedChat()
    await chat.resumeStream()
    await sent
  }
  await tab.ended(1)
  return { tab: tab.result(), chat: chat.result() }
})
