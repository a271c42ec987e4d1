"""How quick the streams server is, beside the protocol's reference server: `python -m benchmarks`."""
