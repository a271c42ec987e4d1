"""A site with the chat, and with what is built without it: ``python -m benchmarks.site FILE [--long]``."""
