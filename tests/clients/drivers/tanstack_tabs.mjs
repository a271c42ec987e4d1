// Some tabs on one conversation; the first sends the prompts one after the other, then reloads if asked to.

import { drive } from './support.mjs'
import { openTab } from './tanstack.mjs'

await drive(async ({ prompts = [], tabs: count = 1, hydrate = false, reload = false }) => {
  const tabs = await Promise.all(Array.from({ length: count }, () => openTab({ hydrate })))
  const [first] = tabs
  for (const prompt of prompts) await first.client.sendMessage(prompt)
  if (reload) await first.client.reload()
  const runs = prompts.length + (reload ? 1 : 0)
  await Promise.all(tabs.map((tab) => tab.ended(runs)))
  return { tabs: tabs.map((tab) => tab.result()) }
})
