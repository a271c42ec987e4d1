"""Our server on a free port, whose URL it prints: `python -m benchmarks.serve FILE [HOST-SITE'S FILE]`."""

import socket
import sys
from pathlib import Path

import uvicorn

from benchmarks.host import beside
from durable_chat.streams.embedded.asgi import StreamsApplication
from durable_chat.streams.server import Access, StreamServer
from durable_chat.streams.stores.sqlite import SQLiteStore

ROOT = "/v1/stream/"


def main() -> None:
    server = StreamServer(SQLiteStore(Path(sys.argv[1]), synchronous="FULL"))
    streams = StreamsApplication(server.handle, root=ROOT, access=Access(anonymous=True))
    application = beside(streams, root=ROOT, database=Path(sys.argv[2])) if len(sys.argv) > 2 else streams
    # Told its protocol, or asyncio leaves Nagle's algorithm on and every answer takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(
        application, lifespan="off", log_level="warning", access_log=False, timeout_graceful_shutdown=1
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
