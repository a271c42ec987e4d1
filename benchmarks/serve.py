"""Our server on a free port, whose URL it prints: `sqlite FILE [HOST-SITE'S FILE]` or `postgres CONNINFO`."""

import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn

from benchmarks.host import beside
from durable_chat.streams.embedded.asgi import StreamsApplication
from durable_chat.streams.embedded.postgres import PostgresStore
from durable_chat.streams.server import Access, StreamServer
from durable_chat.streams.stores.base import StreamStore
from durable_chat.streams.stores.sqlite import SQLiteStore

ROOT = "/v1/stream/"


def main() -> None:
    kind, where, *host = sys.argv[1:]
    server = StreamServer(_store(kind, where))
    streams = StreamsApplication(server.handle, root=ROOT, access=Access(anonymous=True))
    application = beside(streams, root=ROOT, database=Path(host[0])) if host else streams
    serve(application)


def serve(application: Any) -> None:
    """Serve it until the process ends."""
    # Told its protocol, or asyncio leaves Nagle's algorithm on and every answer takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(
        application, lifespan="off", log_level="warning", access_log=False, timeout_graceful_shutdown=1
    )
    uvicorn.Server(config).run(sockets=[listener])


def _store(kind: str, where: str) -> StreamStore:
    if kind == "postgres":
        return PostgresStore(lambda: {"conninfo": where})
    return SQLiteStore(Path(where), synchronous="FULL")


if __name__ == "__main__":
    main()
