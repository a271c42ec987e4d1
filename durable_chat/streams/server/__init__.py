"""The server: a function from a request to a response, over any store."""

from durable_chat.streams.server.auth import Access, authorize
from durable_chat.streams.server.server import StreamServer

__all__ = ["Access", "StreamServer", "authorize"]
