"""A service that says, byte for byte, what a test has written down; it knows who comes and who leaves."""

import asyncio
import ssl
from collections.abc import Sequence
from typing import NamedTuple, Self

from durable_chat.streams.client.transport import Origin, Outgoing, Patience


class Say(NamedTuple):
    """One answer, and whether it is the connection's last."""

    wire: bytes
    last: bool = False


HANG_UP = Say(b"", last=True)
SOMEWHERE = Origin("http", "streams.example", 80)


class Scripted:
    """Plays one line of its script a request, whichever connection that comes over."""

    def __init__(self, script: Sequence[Say], *, tls: ssl.SSLContext | None = None) -> None:
        self.script = list(script)
        self.requests: list[bytes] = []
        self.connections = 0
        self.open = 0
        self._nobody = asyncio.Event()
        self._nobody.set()
        self._tls = tls

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._visited, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        await self.is_left()

    async def is_left(self) -> None:
        """All have hung up."""
        async with asyncio.timeout(5):
            await self._nobody.wait()

    async def _visited(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self._nobody.clear()
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # it has left
        finally:
            writer.close()
            self.open -= 1
            if not self.open:
                self._nobody.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            _, _, length = head.lower().partition(b"content-length: ")
            body = await reader.readexactly(int(length.split(b"\r\n")[0] or 0))
            self.requests.append(head + body)
            said = self.script.pop(0)
            writer.write(said.wire)
            await writer.drain()
            if said.last:
                return

    def asked(
        self,
        method: str = "GET",
        *,
        body: bytes = b"",
        scheme: str = "http",
        patience: Patience | None = None,
    ) -> Outgoing:
        """A request to it."""
        return outgoing(method, origin=Origin(scheme, "127.0.0.1", self.port), body=body, patience=patience)


def outgoing(
    method: str = "GET",
    *,
    origin: Origin = SOMEWHERE,
    body: bytes = b"",
    patience: Patience | None = None,
) -> Outgoing:
    headers = {"host": "streams.example", "authorization": "Bearer sentinel"}
    return Outgoing(origin, method, "/s?offset=-1", headers, body, False, patience or Patience())
