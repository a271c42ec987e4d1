// The reference server on a free port, whose URL it prints: in memory, or in the directory that is named.
import { DurableStreamTestServer } from "@durable-streams/server"

const [dataDir] = process.argv.slice(2)
console.info = () => {} // it logs there, and nobody reads what follows the URL
const server = new DurableStreamTestServer({ port: 0, host: "127.0.0.1", ...(dataDir ? { dataDir } : {}) })
console.log(await server.start())
