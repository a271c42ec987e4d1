"""The protocol's rules as functions of values: no I/O, no asyncio, no Django."""
