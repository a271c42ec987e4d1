// Comes to a conversation in the middle of an answer, resumes it, and asks once more when it has ended.

import { hydratedChat, transport } from './ai_sdk.mjs'
import { args, drive } from './support.mjs'

await drive(async () => {
  const chat = await hydratedChat()
  const seed = chat.result().messages
  await chat.resumeStream()
  const again = await transport().reconnectToStream({ chatId: args.id })
  return { seed, again, ...chat.result() }
})
