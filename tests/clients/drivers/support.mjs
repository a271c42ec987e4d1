// What every driver shares: the browser it pretends to be, its arguments and its one JSON result.

const PATIENCE_MS = 60_000

export const args = JSON.parse(process.argv[2])

// Cookies as a browser would send them, to the site and to nobody else. The AI SDK's durable transport
// reads streams with the global fetch and no headers, so the cookie can only be added here.
const plainFetch = globalThis.fetch
globalThis.fetch = (input, init = {}) => {
  const url = new URL(input instanceof Request ? input.url : input)
  if (url.origin !== args.base) throw new Error(`A client asked somebody else: ${url}`)
  const headers = new Headers(init.headers ?? (input instanceof Request ? input.headers : undefined))
  headers.set('cookie', args.cookie)
  return plainFetch(input, { ...init, headers })
}

// What a page puts on its connection: Django takes the token of its cookie as a header.
export const headers = { 'x-csrftoken': args.csrf }

export const url = (path) => `${args.base}/${path}`

export async function hydrated(dialect) {
  const response = await fetch(url(`api/conversations/${args.id}?as=${dialect}`))
  if (!response.ok) throw new Error(`No hydration: ${response.status}`)
  return response.json()
}

// Watches messages grow: text may only be added to, unless its message goes.
export class Growth {
  steps = 0
  rewinds = []
  #texts = new Map()

  look(messages) {
    for (const { id, text } of messages) {
      const before = this.#texts.get(id)
      if (before === text) continue
      if (before !== undefined && !text.startsWith(before)) this.rewinds.push([before, text])
      this.#texts.set(id, text)
      this.steps += 1
    }
  }
}

export function words(text) {
  return text.split(' ').length - 1
}

// Resolves with the first value that satisfies `wanted`; feed it with every change.
export class Until {
  constructor(wanted) {
    this.reached = new Promise((resolve) => {
      this.look = (value) => wanted(value) && resolve(value)
    })
  }
}

// How far the scenario has come, for whoever reads why it did not end.
export const steps = []

// Runs the scenario and prints what it returns, whatever connections are still open.
export async function drive(scenario) {
  const timer = setTimeout(() => finish({ failure: `The scenario did not end: ${steps.join(', ') || 'no step'}.` }, 1), PATIENCE_MS)
  try {
    finish(await scenario(args), 0)
  } catch (error) {
    finish({ failure: String(error?.stack ?? error) }, 1)
  }
  clearTimeout(timer)
}

function finish(result, code) {
  process.stdout.write(JSON.stringify(result), () => process.exit(code))
}
