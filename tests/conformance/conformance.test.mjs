// The official suite against the server at CONFORMANCE_TEST_URL (its origin; the suite adds /v1/stream).
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

const baseUrl = process.env.CONFORMANCE_TEST_URL
if (!baseUrl) throw new Error("CONFORMANCE_TEST_URL is not set")

runConformanceTests({ baseUrl, longPollTimeoutMs: 2_000 })
