"""A gate before a streams server: it wants the bearer token, and does to the wire what a test asks for."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

_ATTEMPT_SECONDS = 10.0
_OF_ONE_HOP = ("connection:", "keep-alive:")


class Gate:
    """Lets requests for ``/v1/stream/<service id>/…`` with its secret through to ``upstream``: the
    one for reading, for GET and HEAD.

    It lives on a thread of its own, at an address that is its own for life, so that tests of every kind can
    use it. ``faults`` are played one a request, oldest first; ``requests`` is what was asked, whoever asked.
    A fault may be for the requests of one method only.
    """

    def __init__(self, service_id: str, secret: str, read_secret: str) -> None:
        self.upstream = ""
        self.faults: list[Fault | tuple[str, Fault]] = []
        self.requests: list[tuple[str, str]] = []
        self.connections = 0
        self.live = 0
        self._root = f"/v1/stream/{service_id}/"
        self._secrets = {"GET": read_secret, "HEAD": read_secret}
        self._secret = secret
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)
        self._server: asyncio.Server | None = None
        self._visits: set[asyncio.Task[None]] = set()
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def open(self) -> None:
        """Listen, at the same address as before."""
        self._do(self._open())

    def shut(self) -> None:
        """Nobody is there: connections are refused, and those there are break."""
        self._do(self._shut())

    def asked(self, method: str) -> int:
        """How many requests of that method have come."""
        return sum(each == method for each, _ in self.requests)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(asyncio.sleep(0))  # connections that were dropped are closed in it
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_ATTEMPT_SECONDS)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._visited, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for visit in self._visits:
            visit.cancel()
        if self._visits:
            await asyncio.wait(self._visits)

    async def _visited(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = asyncio.current_task()
        assert visit is not None
        self._visits.add(visit)
        self.connections += 1
        try:
            async with _Visitor(reader) as visitor:
                await self._serve(visitor, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._visits.discard(visit)
            writer.close()

    async def _serve(self, visitor: "_Visitor", writer: asyncio.StreamWriter) -> None:
        while True:
            head, body = await visitor.request()
            exchange = Exchange(head, body, writer, self.upstream)
            self.requests.append((exchange.method, exchange.path))
            answering = asyncio.ensure_future(self._answer(exchange))
            self.live += "live=" in exchange.target
            try:
                await asyncio.wait({answering, visitor.reading}, return_when=asyncio.FIRST_COMPLETED)
                if not answering.done():
                    return  # the visitor has left
                answering.result()
            finally:
                self.live -= "live=" in exchange.target
                answering.cancel()
                await asyncio.wait({answering})

    async def _answer(self, exchange: "Exchange") -> None:
        secret = self._secrets.get(exchange.method, self._secret)
        if exchange.header("authorization").lower() != f"bearer {secret}":
            exchange.reply(401)
        elif not exchange.path.startswith(self._root):
            exchange.reply(404)
        else:
            await self._next_fault(exchange.method)(exchange)

    def _next_fault(self, method: str) -> "Fault":
        for number, fault in enumerate(self.faults):
            wanted, play = fault if isinstance(fault, tuple) else (method, fault)
            if wanted == method:
                del self.faults[number]
                return play
        return Exchange.pass_on


class _Visitor:
    """What a connection sends; ``reading`` ends when it hangs up, also while it is being answered."""

    def __init__(self, outside: asyncio.StreamReader) -> None:
        self._outside = outside
        self._inside = asyncio.StreamReader()
        self.reading: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self.reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reading.cancel()
        await asyncio.wait({self.reading})

    async def _read(self) -> None:
        with suppress(ConnectionError):
            while piece := await self._outside.read(65536):
                self._inside.feed_data(piece)
        self._inside.feed_eof()

    async def request(self) -> tuple[str, bytes]:
        """Raises IncompleteReadError when there is none any more."""
        head = (await self._inside.readuntil(b"\r\n\r\n")).decode("latin-1")
        if _header(head, "transfer-encoding"):
            return head, await self._chunked()
        return head, await self._inside.readexactly(int(_header(head, "content-length") or 0))

    async def _chunked(self) -> bytes:
        raw = b""
        while True:
            line = await self._inside.readline()
            raw += line + await self._inside.readexactly(int(line, 16) + 2)
            if int(line, 16) == 0:
                return raw


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, and the connection that waits for its answer. A fault is something to do with it."""

    head: str
    body: bytes
    writer: asyncio.StreamWriter
    upstream: str

    @property
    def method(self) -> str:
        return self.head.split(" ", 1)[0]

    @property
    def target(self) -> str:
        return self.head.split(" ", 2)[1]

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def header(self, name: str) -> str:
        """A header's value, or nothing."""
        return _header(self.head, name)

    def reply(self, status: int, *, retry_after: str = "", content_type: str = "", body: bytes = b"") -> None:
        """An answer of the gate's own."""
        told = {"content-length": str(len(body)), "content-type": content_type, "retry-after": retry_after}
        lines = [f"{name}: {value}\r\n" for name, value in told.items() if value]
        self.writer.write(f"HTTP/1.1 {status} -\r\n{''.join(lines)}\r\n".encode() + body)

    async def pass_on(self, *, cut_after: int | None = None) -> None:
        """To the server and back; ``cut_after`` so many bytes of the answer the connection is reset."""
        reader, server = await self.send()
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            kept = [line for line in lines if not line.lower().startswith(_OF_ONE_HOP)]
            self.writer.write("\r\n".join(kept).encode("latin-1"))
            last = b""
            while piece := await reader.read(65536):
                self.writer.write(piece[:cut_after])
                await self.writer.drain()
                last = (last + piece)[-5:]
                if cut_after is not None and (cut_after := cut_after - len(piece)) <= 0:
                    return self.reset()
            if b"transfer-encoding: chunked" in head.lower() and last != b"0\r\n\r\n":
                self.reset()  # the server died in it
        finally:
            server.close()

    async def send(self, body: bytes | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The request to the server, without the secret, on a connection of its own."""
        address = urlsplit(self.upstream)
        reader, server = await asyncio.open_connection(address.hostname, address.port)
        lines = self.head.removesuffix("\r\n\r\n").split("\r\n")
        kept = [line for line in lines if not line.lower().startswith(("authorization:", *_OF_ONE_HOP))]
        server.write("\r\n".join([*kept, "Connection: close", "", ""]).encode("latin-1"))
        server.write(self.body if body is None else body)
        return reader, server

    def reset(self) -> None:
        """Drop the connection without a word."""
        self.writer.transport.abort()


Fault: TypeAlias = Callable[[Exchange], Awaitable[None]]


async def reset_before(exchange: Exchange) -> None:
    """The request never arrives."""
    exchange.reset()


async def reset_within(exchange: Exchange) -> None:
    """The connection breaks when half of the request has arrived."""
    _, server = await exchange.send(exchange.body[: len(exchange.body) // 2])
    await server.drain()
    server.transport.abort()
    exchange.reset()


async def answer_lost(exchange: Exchange) -> None:
    """The server has done what was asked, and nobody hears of it."""
    reader, server = await exchange.send()
    await reader.read()
    server.close()
    exchange.reset()


async def garbage(exchange: Exchange) -> None:
    """Something else answers, in another language."""
    exchange.writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
    exchange.reset()


class Hold:
    """A fault: a request is kept here until it is let go, and so lost. Meanwhile the server has none."""

    def __init__(self) -> None:
        self.arrived: Future[None] = Future()
        self.let_go: Future[None] = Future()

    async def __call__(self, exchange: Exchange) -> None:
        self.arrived.set_result(None)
        await asyncio.wrap_future(self.let_go)
        exchange.reset()


async def login_page(exchange: Exchange) -> None:
    """A proxy's page, with a status that says all is well."""
    exchange.reply(200, content_type="text/html", body=b"<h1>Please sign in</h1>")


async def silence(exchange: Exchange) -> None:
    """Nothing, until whoever asks has lost patience."""
    await asyncio.Event().wait()


def refusal(status: int, retry_after: str = "") -> Fault:
    """An answer that says: not now."""

    async def refused(exchange: Exchange) -> None:
        exchange.reply(status, retry_after=retry_after)

    return refused


def cut(after: int) -> Fault:
    """The answer breaks off after so many bytes."""

    async def broken(exchange: Exchange) -> None:
        await exchange.pass_on(cut_after=after)

    return broken


def _header(head: str, name: str) -> str:
    for line in head.split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name:
            return value.strip()
    return ""
