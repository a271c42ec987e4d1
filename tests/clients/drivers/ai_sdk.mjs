// An AI SDK chat: the durable transport under the real AbstractChat, as `useChat` would hold it.

import { createDurableChatTransport } from '@durable-streams/aisdk-transport'
import { AbstractChat } from 'ai'
import { args, Growth, headers, hydrated, Until, url } from './support.mjs'

export const transport = () => createDurableChatTransport({ api: url('api/chat'), headers })

const textOf = (message) =>
  message.parts.filter((part) => part.type === 'text').map((part) => part.text).join('')

const plain = (messages) => messages.map(({ id, role, ...message }) => ({ id, role, text: textOf(message) }))

class State {
  status = 'ready'
  error = undefined
  #messages
  #changed

  constructor(messages, changed) {
    this.#messages = messages
    this.#changed = changed
  }

  get messages() {
    return this.#messages
  }

  set messages(messages) {
    this.#messages = messages
    this.#changed()
  }

  pushMessage = (message) => {
    this.messages = [...this.#messages, message]
  }

  popMessage = () => {
    this.messages = this.#messages.slice(0, -1)
  }

  replaceMessage = (index, message) => {
    this.messages = this.#messages.toSpliced(index, 1, message)
  }

  snapshot = (value) => structuredClone(value)
}

export class Chat extends AbstractChat {
  growth = new Growth()
  errors = []
  finishes = []
  #watchers = []

  constructor(messages = []) {
    super({
      id: args.id,
      transport: transport(),
      state: new State(messages, () => this.look()),
      onError: (error) => this.errors.push(error.message),
      onFinish: ({ finishReason = null, isError }) => this.finishes.push({ finishReason, isError }),
    })
  }

  look() {
    this.growth.look(plain(this.messages))
    for (const watcher of this.#watchers) watcher.look(this)
  }

  answer() {
    return plain(this.messages).findLast((message) => message.role === 'assistant')?.text ?? ''
  }

  until(wanted) {
    const watcher = new Until(wanted)
    this.#watchers.push(watcher)
    return watcher.reached
  }

  result() {
    return {
      messages: plain(this.messages),
      status: this.status,
      finishes: this.finishes,
      errors: this.errors,
      steps: this.growth.steps,
      rewinds: this.growth.rewinds,
    }
  }
}

export async function hydratedChat() {
  return new Chat((await hydrated('ai-sdk')).messages)
}
