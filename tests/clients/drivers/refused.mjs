// Both clients on a conversation that is somebody else's.

import { Chat, transport } from './ai_sdk.mjs'
import { args, drive } from './support.mjs'
import { openTab } from './tanstack.mjs'

const refusal = (promise) => promise.then(() => null, (error) => error.message)

await drive(async ({ prompt }) => {
  const tab = await openTab()
  const read = tab.result()
  await tab.client.sendMessage(prompt)
  const chat = new Chat()
  await chat.sendMessage({ text: prompt })
  const reconnect = await refusal(transport().reconnectToStream({ chatId: args.id }))
  return { read, sent: tab.result(), chat: chat.result(), reconnect }
})
