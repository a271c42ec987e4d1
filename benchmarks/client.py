"""The load generator's HTTP/1.1: raw, keep-alive, one request in flight a connection."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

P = TypeVar("P", bound=asyncio.Protocol)

_WITHOUT_BODY = frozenset({204, 304})


class Answer(NamedTuple):
    """``head`` is in lower case."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str:
        """A header's value; empty if it is not there."""
        _, _, rest = self.head.partition(b"\r\n%s:" % name.encode())
        return rest.partition(b"\r\n")[0].strip().decode()


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._answered: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._received += data
        answer = parse(self._received)
        if answer is not None and self._answered is not None:
            self._received.clear()
            self._answered.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(exc or ConnectionResetError("The server hung up."))

    async def ask(self, request: bytes) -> Answer:
        """The answer to a request, which has to be of 2xx."""
        self._answered = self._loop.create_future()
        self.transport.write(request)
        answer = await self._answered
        if not 200 <= answer.status < 300:
            raise AssertionError(f"{answer.status} to {request[:80]!r}: {answer.body[:200]!r}")
        return answer


def request(method: str, path: str, body: bytes = b"", *, headers: Mapping[str, str] | None = None) -> bytes:
    """A request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body or method in {"POST", "PUT"}:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def connections(url: str, make: Callable[[], P], count: int) -> AsyncIterator[list[P]]:
    """``count`` open connections to a server, closed at the end."""
    host, port = urlsplit(url).netloc.split(":")
    loop = asyncio.get_running_loop()
    opened: list[tuple[asyncio.Transport, P]] = []
    try:
        for _ in range(count):
            opened.append(await loop.create_connection(make, host, int(port)))
        yield [protocol for _, protocol in opened]
    finally:
        for transport, _ in opened:
            transport.close()


def parse(received: bytearray) -> Answer | None:
    """The answer, as soon as all of it is there."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, start = bytes(received[:end]).lower(), end + 4
    status = int(head[9:12])
    if status in _WITHOUT_BODY:
        return Answer(status, head, b"")
    if b"\r\ntransfer-encoding: chunked" in head:
        body = _joined(received, start)
        return None if body is None else Answer(status, head, body)
    length = int(Answer(status, head, b"").header("content-length") or 0)
    if len(received) < start + length:
        return None
    return Answer(status, head, bytes(received[start : start + length]))


def _joined(received: bytearray, start: int) -> bytes | None:
    chunks: list[bytes] = []
    while (line := received.find(b"\r\n", start)) >= 0:
        size = int(received[start:line].partition(b";")[0], 16)
        start = line + 2 + size + 2
        if len(received) < start:
            return None
        if size == 0:
            return b"".join(chunks)
        chunks.append(bytes(received[line + 2 : start - 2]))
    return None
