"""The least that a server can do, on a free port whose URL it prints: the load generator's ceiling."""

import asyncio
from typing import cast

from benchmarks.loops import run

_ANSWER = b"HTTP/1.1 204 No Content\r\nstream-next-offset: 0\r\n\r\n"


class _Canned(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(_ANSWER)  # a request of ours arrives in one piece


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(_Canned, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    run(main())
