"""One connection to a service, in HTTP/1.1, and the answer that comes over it."""

import asyncio
from collections.abc import Callable
from typing import Final, Self, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from durable_chat.streams.client.transport import Outgoing
from durable_chat.streams.protocol.exchange import Response

HEAD_BYTES: Final = 64 * 1024
"""What may come in a row without anything of a body: heads, trailers, what is said about chunks."""
UNREAD_BYTES: Final = 256 * 1024
"""What is kept of a body for its reader; then the service has to wait."""
_WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "DELETE"})


class HungUp(ConnectionResetError):
    """The other side ended the connection without a word of an answer."""


class Garbled(ConnectionError):
    """What came is not HTTP/1.1, or more or other than was asked for."""


class Answer:
    """One answer, told by the parser; its own ``Body`` while it is still coming."""

    def __init__(self, connection: "Connection", outgoing: Outgoing) -> None:
        self.status = 0  # until the head is there
        self.headers: dict[str, str] = {}
        self.complete = False
        self.keeps_connection = False
        self.error: OSError | None = None
        self._connection = connection
        self._to_head = outgoing.method == "HEAD"
        self._silence = outgoing.silence
        self._loop = asyncio.get_running_loop()
        self._parser = HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._unread = 0
        self._bodiless = 0
        self._heard = False
        self._until_end = False  # the body ends with the connection
        self._news: asyncio.Future[None] | None = None

    # What the connection tells.

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        self._heard = True
        self._bodiless += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._fail(Garbled())
        if self._bodiless > HEAD_BYTES and not self.complete:
            self._fail(Garbled())
        if self.complete or self.error is not None:
            del self._parser  # which knows this answer
        self._tell()

    def end(self, error: Exception | None) -> None:
        """Nothing more will come; with an error, the connection broke."""
        del self._parser
        if self._until_end and error is None:
            self.complete = True
        elif self._heard:
            self._fail(ConnectionResetError())
        else:
            self._fail(HungUp())
        self._tell()

    def _fail(self, error: OSError) -> None:
        self.keeps_connection = False
        if not self.complete:
            self.error = error

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # What the parser tells.

    def on_message_begin(self) -> None:
        if self.complete:
            raise Garbled

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:
            return  # a trailer
        known, text = name.decode("latin-1").lower(), value.decode("latin-1").rstrip(" \t")
        self.headers[known] = f"{self.headers[known]}, {text}" if known in self.headers else text

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self.headers.clear()  # of an interim answer; the one to wait for follows
            return
        if self.headers.get("transfer-encoding", "chunked").lower() != "chunked":
            raise Garbled
        self.status = status
        framed = "content-length" in self.headers or "transfer-encoding" in self.headers
        self._until_end = not (self._to_head or framed or status in (204, 304))
        if self._to_head:
            self._completed()

    def on_body(self, piece: bytes) -> None:
        if self.complete:
            raise Garbled
        self._bodiless = 0
        self._pieces.append(piece)
        self._unread += len(piece)
        if self._unread > UNREAD_BYTES:
            self._connection.pause()

    def on_message_complete(self) -> None:
        if self.status:
            self._completed()

    def _completed(self) -> None:
        self.complete = True
        closes = "close" in self.headers.get("connection", "").lower()
        self.keeps_connection = not closes and self._parser.get_http_version() == "1.1"

    # What the reader asks.

    async def begun(self, *, within: float) -> Response:
        """The answer, as soon as its head is there; its body as bytes if they are all there too."""
        until = self._loop.time() + within
        while not self.status:
            await self._more(until)
        return Response(self.status, self.headers, self._take() if self.complete else self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces and not self.complete:
            await self._more(self._loop.time() + self._silence)
        if not self._pieces:
            raise StopAsyncIteration
        return self._take()

    async def aclose(self) -> None:
        """Let go of what is not read."""
        self._pieces.clear()
        if not self.complete:
            self._connection.abort()

    def _take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        self._unread = 0
        if not self.complete:
            self._connection.resume()
        return taken

    async def _more(self, until: float) -> None:
        """Wait for whatever comes next. Raises what has gone wrong."""
        if self.error is not None:
            raise self.error
        self._news = self._loop.create_future()
        timer = self._loop.call_at(until, self._expire)
        try:
            await self._news
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self._fail(TimeoutError())
        self._tell()


class Connection(asyncio.Protocol):
    """Carries one request at a time; ``idle`` hears when it may carry another, ``gone`` when it is closed."""

    def __init__(self, idle: Callable[["Connection"], None], gone: Callable[["Connection"], None]) -> None:
        self._idle = idle
        self._gone = gone
        self._answer: Answer | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self.closed = asyncio.get_running_loop().create_future()

    @property
    def usable(self) -> bool:
        return self._answer is None and not self._transport.is_closing()

    async def ask(self, outgoing: Outgoing) -> Response:
        """Send a request and wait for the head of its answer. Raises ``OSError``, ``HungUp`` for one."""
        if not self.usable:
            raise HungUp
        answer = self._answer = Answer(self, outgoing)
        try:
            self._transport.write(encoded(outgoing))
            return await answer.begun(within=outgoing.patience.write + outgoing.silence)
        except BaseException:  # a cancelled caller, too
            if self._answer is answer:  # else it has come, and the connection is somebody else's
                self.abort()
            raise

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            self.abort()  # nobody has asked
            return
        answer.feed(data)
        if answer.error is None and not answer.complete:
            return
        self._answer = None
        # A service that answers before it has read all of a request may never read the rest.
        if answer.keeps_connection and not self._transport.get_write_buffer_size():
            self.resume()
            self._idle(self)
        else:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.end(exc)
        self.closed.set_result(None)
        self._gone(self)

    def pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Hang up, without a wait for what is still to be sent."""
        self._transport.abort()


def encoded(outgoing: Outgoing) -> bytes:
    """A request as it goes over the wire."""
    lines = [f"{outgoing.method} {outgoing.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in outgoing.headers.items()]
    if outgoing.body or outgoing.method not in _WITHOUT_BODY:
        lines.append(f"content-length: {len(outgoing.body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + outgoing.body
