// Comes to a conversation in the middle of an answer and stays until its end.

import { drive } from './support.mjs'
import { openTab } from './tanstack.mjs'

await drive(async ({ hydrate }) => {
  const tab = await openTab({ hydrate })
  const first = { seed: tab.seed, answer: tab.answer() }
  await tab.ended(1)
  return { first, ...tab.result() }
})
