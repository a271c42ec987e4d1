// Sends a prompt and is gone, without a word, when some words of the answer have come.

import { drive, words } from './support.mjs'
import { openTab } from './tanstack.mjs'

await drive(async ({ prompt, after }) => {
  const tab = await openTab()
  tab.client.sendMessage(prompt)
  await tab.until(() => words(tab.answer()) >= after)
  return tab.result()
})
