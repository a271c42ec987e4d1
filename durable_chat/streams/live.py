"""Live reads: one answer that waits, and one that goes on (sections 5.7 and 5.8)."""

import asyncio
import random
import time
from asyncio import get_running_loop
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from durable_chat.streams.departure import SHORTEST_SECONDS, departure
from durable_chat.streams.hub import Frame, Hub
from durable_chat.streams.pages import describe, etag
from durable_chat.streams.protocol import cursors
from durable_chat.streams.protocol.errors import StreamError
from durable_chat.streams.protocol.exchange import Request, Response
from durable_chat.streams.protocol.headers import STREAM_SSE_DATA_ENCODING, is_text
from durable_chat.streams.protocol.sse import KEEP_ALIVE

SSE_SECONDS: Final = 60.0
LONG_POLL_SECONDS: Final = 20.0
KEEP_ALIVE_SECONDS: Final = 15.0


async def long_poll(hub: Hub, request: Request, *, offset: str, seconds: float) -> Response:
    """200 as soon as something follows ``offset``; 204 when nothing does in ``seconds``, or ever will."""
    until = get_running_loop().time() + seconds
    frame = await hub.read(request.path, offset)
    if frame.end == frame.start and not frame.closed:
        async with hub.reader(request.path) as reader:
            frame = await reader.after(frame, until=until) or frame
    headers = {**describe(frame, cursor=cursor(request)), "cache-control": "no-store"}
    if frame.end == frame.start:
        del headers["content-type"]
        return Response(204, headers)
    return Response(200, {**headers, "etag": etag(frame)}, frame.body)


async def sse(hub: Hub, request: Request, *, offset: str, seconds: float) -> Response:
    """Events until the stream is closed or gone, or about so many ``seconds`` have passed."""
    frame = await hub.read(request.path, offset)
    window = _Window(hub, request.path, frame, int(cursor(request)), _lifetime(seconds))
    headers = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}
    if not is_text(frame.content_type):
        headers[STREAM_SSE_DATA_ENCODING] = "base64"
    return Response(200, headers, window.events())


def cursor(request: Request) -> str:
    """The cursor to answer a request with."""
    return _issue(request.query.get("cursor"))


def _issue(echoed: str | None) -> str:
    jitter = random.randint(1, cursors.MAX_JITTER) if echoed else 0  # noqa: S311 - spreads cache keys
    return cursors.issue(echoed, now=time.time(), jitter=jitter)


@dataclass(frozen=True, slots=True)
class _Window:
    """One SSE answer: from its first frame, which has been read, to its roll after ``seconds``."""

    hub: Hub
    path: str
    first: Frame
    cursor: int
    seconds: float

    async def events(self) -> AsyncGenerator[bytes, None]:
        clock = get_running_loop().time
        begin = clock()
        frame, cursor = self.first, max(self.cursor, self.first.cursor)
        yield _pair(frame, cursor)
        async with self.hub.reader(self.path) as reader:
            while not frame.closed and clock() < (end := self._end(begin)):
                try:
                    following = await reader.after(frame, until=min(end, clock() + KEEP_ALIVE_SECONDS))
                except StreamError:  # deleted, or the source fails: the reader asks again and is told
                    await asyncio.sleep(begin + SHORTEST_SECONDS - clock())
                    return
                if following is not None:
                    frame, cursor = following, max(cursor, following.cursor)
                    yield _pair(frame, cursor)
                elif clock() < self._end(begin):
                    yield KEEP_ALIVE
        if not frame.closed:
            yield frame.control(int(_issue(str(cursor))))

    def _end(self, begin: float) -> float:
        return begin + (SHORTEST_SECONDS if departure.closing else self.seconds)


def _pair(frame: Frame, cursor: int) -> bytes:
    """What all readers are sent, unless one has echoed a cursor that is ahead: it may never go back."""
    return frame.pair if frame.cursor == cursor else frame.data + frame.control(cursor)


def _lifetime(seconds: float) -> float:
    jitter = random.uniform(0.9, 1.1)  # noqa: S311 - readers that came together shall not all return together
    return max(SHORTEST_SECONDS, seconds * jitter)
