"""Durable Streams: append-only logs over HTTP that a reader resumes by offset. Knows nothing of chat."""
