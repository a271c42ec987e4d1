"""Following a stream: pages until up to date, then live, over as many connections as it takes."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from math import inf
from typing import Any

import orjson

from durable_chat.streams.client.backoff import Backoff
from durable_chat.streams.client.client import StreamClient, parse_messages
from durable_chat.streams.client.sse import Decoder
from durable_chat.streams.client.values import Batch
from durable_chat.streams.protocol.errors import Unavailable
from durable_chat.streams.protocol.exchange import Request, Response
from durable_chat.streams.protocol.offsets import NOW, START

_BRIEF = 1.0  # seconds; a connection that ends sooner and brings nothing is no reason to ask again at once


@dataclass(slots=True)
class _Place:
    """Where a reader stands: all that one connection hands on to the next."""

    offset: str
    cursor: str | None = None
    caught_up: bool = False

    def advance(self, batch: Batch) -> bool:
        """Move behind ``batch``; whether it tells anything new."""
        news = batch.items or batch.closed or batch.offset != self.offset or batch.up_to_date > self.caught_up
        self.offset, self.caught_up = batch.offset, batch.up_to_date
        return bool(news)


async def subscribe(
    client: StreamClient,
    path: str,
    *,
    offset: str = START,
    live: bool = True,
    silence: float = 90.0,
    give_up_after: float = inf,
) -> AsyncGenerator[Batch, None]:
    """Every batch after ``offset``, once and in order, until the stream is closed, or up to date if not live.

    A connection that drops, rolls, or says nothing for ``silence`` seconds (not even a keep-alive) is
    replaced by one that resumes behind the last batch. Unavailable is waited out, for ``give_up_after``
    seconds at most; StreamNotFound, StreamGone, Unauthorized, Forbidden and BadRequest are raised. A batch
    without items says that the reader is up to date, or that the stream is closed. Close the generator
    (``aclosing``) to let go of its connection.
    """
    place, backoff = _Place(offset), Backoff(give_up_after)
    clock = asyncio.get_running_loop().time
    while True:
        began, heard, news, failure = clock(), False, False, None
        try:
            async with aclosing(_connection(client, path, place=place, silence=silence)) as batches:
                async for batch in batches:
                    heard = True
                    if not place.advance(batch):
                        continue
                    news = True
                    yield batch
                    if batch.closed or (batch.up_to_date and not live):
                        return
        except Unavailable as error:
            failure = error
        if news or (heard and clock() - began >= _BRIEF):
            backoff.reset()
            if failure is None:
                continue  # it rolled, or was a page: the next one follows at once
        await backoff.pause(failure or Unavailable("The stream service ends live reads at once."))


async def _connection(
    client: StreamClient, path: str, *, place: _Place, silence: float
) -> AsyncGenerator[Batch, None]:
    """What one connection brings. ``place`` is advanced by the caller between two batches."""
    if not place.caught_up:
        yield await client.read(path, offset=place.offset)
        return
    query = {"live": "sse", "offset": place.offset, **({"cursor": place.cursor} if place.cursor else {})}
    request = Request("GET", path, query, {"accept": "text/event-stream"})
    async with await client.open(request) as response, aclosing(_pieces(response, silence)) as pieces:
        decoder = Decoder()
        items: list[Any] = []
        async for piece in pieces:
            for event in decoder.feed(piece):
                if event.name == "data":
                    items.extend(parse_messages(event.data))
                elif event.name == "control":
                    yield _batch(items, _control(event.data), place)
                    items = []  # what no control confirms is dropped with the connection and read again


async def _pieces(response: Response, silence: float) -> AsyncGenerator[bytes, None]:
    if isinstance(response.body, bytes):
        yield response.body
        return
    pieces = aiter(response.body)
    while True:
        try:
            async with asyncio.timeout(silence):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Unavailable("The live read went silent.") from None
        yield piece


def _control(data: bytes) -> dict[str, Any]:
    try:
        control = orjson.loads(data)
    except orjson.JSONDecodeError:
        control = None
    if not isinstance(control, dict) or not isinstance(control.get("streamNextOffset"), str):
        raise Unavailable("The stream service sent a control event without an offset.")
    return control


def _batch(items: list[Any], control: dict[str, Any], place: _Place) -> Batch:
    place.cursor = control.get("streamCursor", place.cursor)
    offset, closed = control["streamNextOffset"], control.get("streamClosed") is True
    return Batch(
        tuple(items),
        before=offset if place.offset == NOW else place.offset,
        offset=offset,
        up_to_date=closed or control.get("upToDate") is True,
        closed=closed,
    )
