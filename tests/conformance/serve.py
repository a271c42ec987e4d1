"""A streams server on a free port, whose URL it prints: `python -m tests.conformance.serve [sqlite-file]`."""

import socket
import sys
from pathlib import Path

import uvicorn

from durable_chat.streams.embedded.asgi import StreamsApplication
from durable_chat.streams.server import Access, StreamServer
from durable_chat.streams.stores.memory import MemoryStore
from durable_chat.streams.stores.sqlite import SQLiteStore


def main() -> None:
    store = SQLiteStore(Path(sys.argv[1])) if len(sys.argv) > 1 else MemoryStore()
    server = StreamServer(store, long_poll_seconds=2.0)  # the suite waits one out, and is told how long it is
    door = StreamsApplication(server.handle, root="/v1/stream/", access=Access(anonymous=True))
    # Told its protocol, or asyncio leaves Nagle's algorithm on and every answer takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    host, port = listener.getsockname()
    print(f"http://{host}:{port}", flush=True)
    # An open live read would hold a graceful stop for its whole window.
    config = uvicorn.Config(door, lifespan="off", log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
