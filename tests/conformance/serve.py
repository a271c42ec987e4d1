"""A streams server on a free port, whose URL it prints: `python -m tests.conformance.serve [place]`.

The place is a SQLite file or `postgres:` and a schema; without one, streams are kept in memory.
"""

import socket
import sys
from pathlib import Path

import uvicorn

from durable_chat.streams.embedded.asgi import StreamsApplication
from durable_chat.streams.embedded.postgres import PostgresStore
from durable_chat.streams.server import Access, StreamServer
from durable_chat.streams.stores.base import StreamStore
from durable_chat.streams.stores.memory import MemoryStore
from durable_chat.streams.stores.sqlite import SQLiteStore
from tests.streams.postgres import Schema


def _store(place: str = "") -> StreamStore:
    if place.startswith("postgres:"):
        return PostgresStore(Schema(place.removeprefix("postgres:")).parameters)
    return SQLiteStore(Path(place)) if place else MemoryStore()


def main() -> None:
    store = _store(*sys.argv[1:])
    server = StreamServer(store, long_poll_seconds=2.0)  # the suite waits one out, and is told how long it is
    door = StreamsApplication(server.handle, root="/v1/stream/", access=Access(anonymous=True))
    # Told its protocol, or asyncio leaves Nagle's algorithm on and every answer takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)  # whoever is told the URL may come before uvicorn is ready
    host, port = listener.getsockname()
    print(f"http://{host}:{port}", flush=True)
    # An open live read would hold a graceful stop for its whole window.
    config = uvicorn.Config(
        door,
        lifespan="off",
        log_level="warning",
        timeout_graceful_shutdown=1,
        timeout_keep_alive=60,  # or on a busy machine it hangs up just as the suite sends on that connection
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
