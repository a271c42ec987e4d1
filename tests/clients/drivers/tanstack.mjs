// A TanStack tab: the durable transport under a ChatClient, as `useChat({ live: true })` would hold it.

import { durableStreamConnection } from '@durable-streams/tanstack-ai-transport'
import { ChatClient } from '@tanstack/ai-client'
import { args, Growth, headers, hydrated, Until, url } from './support.mjs'

export function connection(options = {}) {
  return durableStreamConnection({
    sendUrl: url(`api/chat?id=${args.id}`),
    readUrl: url(`api/chat-stream?id=${args.id}`),
    headers,
    ...options,
  })
}

const textOf = (message) =>
  message.parts.filter((part) => part.type === 'text').map((part) => part.content).join('')

const plain = (messages) => messages.map(({ id, role, ...message }) => ({ id, role, text: textOf(message) }))

class Tab {
  growth = new Growth()
  errors = []
  terminals = []
  #watchers = []

  constructor(seed) {
    const { messages, offset } = seed ?? {}
    this.connected = new Promise((resolve) => {
      this.client = new ChatClient({
        connection: connection({ initialOffset: offset }),
        threadId: args.id,
        ...(messages ? { initialMessages: messages } : {}),
        onMessagesChange: () => this.#look(),
        onChunk: (chunk) => this.#hear(chunk),
        onError: (error) => this.errors.push(error.message),
        onConnectionStatusChange: (status) => status !== 'connecting' && resolve(status),
      })
    })
    this.client.subscribe()
  }

  messages() {
    return plain(this.client.getMessages())
  }

  answer() {
    return this.messages().findLast((message) => message.role === 'assistant')?.text ?? ''
  }

  // Resolves when `wanted(tab)` has become true.
  until(wanted) {
    const watcher = new Until(wanted)
    this.#watchers.push(watcher)
    watcher.look(this)
    return watcher.reached
  }

  ended(runs) {
    return this.until((tab) => tab.terminals.length >= runs)
  }

  result() {
    return {
      messages: this.messages(),
      loading: this.client.getIsLoading(),
      generating: this.client.getSessionGenerating(),
      status: this.client.getStatus(),
      connection: this.client.getConnectionStatus(),
      terminals: this.terminals,
      errors: this.errors,
      steps: this.growth.steps,
      rewinds: this.growth.rewinds,
    }
  }

  #look() {
    this.growth.look(this.messages())
    for (const watcher of this.#watchers) watcher.look(this)
  }

  // A chunk is shown before it is processed; its turn of the loop has to pass.
  #hear(chunk) {
    if (chunk.type !== 'RUN_FINISHED' && chunk.type !== 'RUN_ERROR') return
    setTimeout(() => {
      this.terminals.push(chunk.type)
      this.#look()
    }, 0)
  }
}

// Without hydration the tab starts from the transport's own snapshot, and is ready when that is there.
export async function openTab({ hydrate = false } = {}) {
  const seed = hydrate ? await hydrated('tanstack') : undefined
  const tab = new Tab(seed)
  tab.seed = seed
  if (!hydrate) await tab.connected
  return tab
}
