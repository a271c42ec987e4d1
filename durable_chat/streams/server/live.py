"""Live reads: one answer that waits, and one that goes on (sections 5.7 and 5.8)."""

import random
import time
from asyncio import get_running_loop
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from durable_chat.streams.protocol import cursors
from durable_chat.streams.protocol import sse as events
from durable_chat.streams.protocol.errors import StreamError, StreamNotFound
from durable_chat.streams.protocol.exchange import Request, Response
from durable_chat.streams.protocol.headers import STREAM_SSE_DATA_ENCODING, is_text
from durable_chat.streams.protocol.offsets import encode
from durable_chat.streams.server.options import KEEP_ALIVE_SECONDS, Options
from durable_chat.streams.server.pages import body, describe, etag
from durable_chat.streams.stores.base import Page, StreamStore

# A client that loses connections within a second of opening them gives the stream up for good.
_SHORTEST_SECONDS: Final = 1.1


async def long_poll(
    store: StreamStore, request: Request, *, position: int | None, options: Options
) -> Response:
    """200 as soon as something follows ``position``; 204 when nothing does in time, or ever will."""
    until = get_running_loop().time() + options.long_poll_seconds
    page = await store.read(request.path, position, limit=options.page_bytes)
    if page.end == page.start and not page.closed:
        page = await _after(store, request.path, page, until=until, limit=options.page_bytes)
    headers = {**describe(page, cursor=cursor(request)), "cache-control": "no-store"}
    if page.end == page.start:
        del headers["content-type"]
        return Response(204, headers)
    return Response(200, {**headers, "etag": etag(page)}, body(page))


async def sse(store: StreamStore, request: Request, *, position: int | None, options: Options) -> Response:
    """Events until the stream is closed or gone, or about ``sse_seconds`` have passed."""
    page = await store.read(request.path, position, limit=options.page_bytes)
    tail = _Tail(store, request.path, page, cursor(request), options)
    headers = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}
    if not is_text(page.stream.content_type):
        headers[STREAM_SSE_DATA_ENCODING] = "base64"
    return Response(200, headers, tail.events())


def cursor(request: Request) -> str:
    """The cursor to answer a request with."""
    return _issue(request.query.get("cursor"))


def _issue(echoed: str | None) -> str:
    jitter = random.randint(1, cursors.MAX_JITTER)  # noqa: S311 - spreads cache keys, keeps no secret
    return cursors.issue(echoed, now=time.time(), jitter=jitter)


@dataclass(frozen=True, slots=True)
class _Tail:
    """One SSE answer: from its first page, which has been read, to its roll."""

    store: StreamStore
    path: str
    first: Page
    cursor: str
    options: Options

    async def events(self) -> AsyncGenerator[bytes, None]:
        clock = get_running_loop().time
        end = clock() + _lifetime(self.options)
        page = self.first
        yield self._pair(page)
        while not page.closed and clock() < end:
            try:
                until = min(end, clock() + KEEP_ALIVE_SECONDS)
                page = await _after(self.store, self.path, page, until=until, limit=self.options.page_bytes)
            except StreamError:
                return  # deleted, or the store fails: the reader asks again and is told
            if page.end > page.start or page.closed:
                yield self._pair(page)
            elif clock() < end:
                yield events.KEEP_ALIVE
        if not page.closed:
            yield self._control(page, cursor=_issue(self.cursor))

    def _pair(self, page: Page) -> bytes:
        control = self._control(page, cursor=self.cursor)
        if page.end == page.start:
            return control
        encode_data = events.data if is_text(page.stream.content_type) else events.binary
        return encode_data(body(page)) + control

    def _control(self, page: Page, *, cursor: str) -> bytes:
        return events.control(encode(page.end), cursor=cursor, up_to_date=page.up_to_date, closed=page.closed)


def _lifetime(options: Options) -> float:
    jitter = random.uniform(0.9, 1.1)  # noqa: S311 - readers that came together shall not all return together
    return max(_SHORTEST_SECONDS, options.sse_seconds * jitter)


async def _after(store: StreamStore, path: str, page: Page, *, until: float, limit: int) -> Page:
    """The page that follows ``page``; an empty one if the stream ends there, or nothing came in time.

    Raises ``StreamNotFound`` when the stream is gone, be it that another took its place.
    """
    clock, tag = get_running_loop().time, page.stream.tag
    while True:
        if page.up_to_date:
            await store.wait(path, page.end, timeout=_patience(page, until - clock()))
        page = await store.read(path, page.end, limit=limit)
        if page.stream.tag != tag:
            raise StreamNotFound
        if page.end > page.start or page.closed or clock() >= until:
            return page


def _patience(page: Page, left: float) -> float:
    # A reader that waits is a use of the stream: it reads again before the time to live is up (section 5.1).
    ttl = page.stream.expiry.ttl
    return left if ttl is None else min(left, ttl / 2)
