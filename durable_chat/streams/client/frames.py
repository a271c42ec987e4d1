"""A service's frames as bytes: pages until up to date, then live, over as many connections as it takes."""

import asyncio
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import orjson

from durable_chat.streams.client.answers import is_closed, is_up_to_date, opened, tail
from durable_chat.streams.client.backoff import Backoff
from durable_chat.streams.client.sse import Decoder
from durable_chat.streams.hub import Frame
from durable_chat.streams.protocol import json_mode
from durable_chat.streams.protocol.errors import StreamNotFound, Unavailable
from durable_chat.streams.protocol.exchange import Handler, Request, Response
from durable_chat.streams.protocol.headers import (
    STREAM_CURSOR,
    STREAM_SSE_DATA_ENCODING,
    is_json,
    is_text,
    media_type,
)

SILENCE_SECONDS: Final = 90.0  # longer than any service keeps a live read without a word
_BRIEF: Final = 1.0  # seconds; what ends sooner and brings nothing is no reason to ask again at once


@dataclass(slots=True)
class _Place:
    """Where a reader stands: all that one connection hands on to the next."""

    offset: str
    last: Frame | None
    cursor: str | None = None

    def advance(self, frame: Frame) -> bool:
        """Move behind ``frame``; whether it tells anything new. Raises ``StreamNotFound``."""
        last, self.offset, self.last = self.last, frame.end, frame
        if last is None:
            return True
        if frame.end < last.end:
            raise StreamNotFound("Another stream has taken this path: it ends before what was read already.")
        return frame.end != last.end or frame.closed or frame.up_to_date > last.up_to_date


async def page(handler: Handler, path: str, offset: str) -> Frame:
    """One page of what follows ``offset`` (section 5.6). Raises what the answer stands for."""
    frame, _ = await _read(handler, Request("GET", path, {"offset": offset}), offset=offset)
    return frame


async def frames(
    handler: Handler,
    path: str,
    *,
    after: str | Frame,
    live: bool = True,
    silence: float = SILENCE_SECONDS,
    give_up_after: float,
) -> AsyncGenerator[Frame, None]:
    """What follows an offset or a frame, once and in order, until the stream is closed.

    If not ``live``, until it is up to date. A connection that drops, rolls, or says nothing for ``silence``
    seconds (not even a keep-alive) is replaced by one that resumes behind the last frame. Unavailable is
    waited out, for ``give_up_after`` seconds at most; every other ``StreamError`` is raised, StreamNotFound
    also when another stream has taken the path. A frame without messages says that the reader is up to date,
    or that the stream is closed. Close the generator (``aclosing``) to let go of its connection.
    """
    place = _Place(after, None) if isinstance(after, str) else _Place(after.end, after)
    backoff, clock = Backoff(give_up_after), asyncio.get_running_loop().time
    while True:
        began, heard, news, failure = clock(), False, False, None
        try:
            async with aclosing(_connection(handler, path, place=place, silence=silence)) as connection:
                async for frame in connection:
                    heard = True
                    if not place.advance(frame):
                        continue
                    news = True
                    yield frame
                    if frame.closed or (frame.up_to_date and not live):
                        return
        except Unavailable as error:
            failure = error
        if news or (heard and clock() - began >= _BRIEF):
            backoff.reset()
            if failure is None:
                continue  # it rolled, or was a page: the next one follows at once
        await backoff.pause(failure or Unavailable("The stream service ends live reads at once."))


async def _connection(
    handler: Handler, path: str, *, place: _Place, silence: float
) -> AsyncGenerator[Frame, None]:
    """What one connection brings. ``place`` is advanced by the caller between two frames."""
    last = place.last
    if last is None or not last.up_to_date:
        yield await page(handler, path, place.offset)
        return
    query = {"offset": place.offset, **({"cursor": place.cursor} if place.cursor else {})}
    if is_text(last.content_type) and not is_json(last.content_type):
        # An event has lines, and forgets how they ended: text comes as it is only as a body.
        request = Request("GET", path, {**query, "live": "long-poll"})
        frame, place.cursor = await _read(handler, request, offset=place.offset, known=last)
        yield frame
        return
    request = Request("GET", path, {**query, "live": "sse"}, {"accept": "text/event-stream"})
    async with (
        await opened(handler, request) as response,
        aclosing(_events(response, place, last.content_type, silence=silence)) as events,
    ):
        async for frame in events:
            yield frame


async def _read(
    handler: Handler, request: Request, *, offset: str, known: Frame | None = None
) -> tuple[Frame, str | None]:
    """The whole answer as a frame, and its cursor. A 204 does not say its type: it is that of ``known``."""
    async with await opened(handler, request) as response:
        body = await response.read()
    content_type = response.headers.get("content-type") or (known.content_type if known else "")
    frame = _frame(
        content_type,
        body,
        start=offset,
        end=tail(response),
        up_to_date=is_up_to_date(response),
        closed=is_closed(response),
    )
    return frame, response.headers.get(STREAM_CURSOR)


async def _events(
    response: Response, place: _Place, content_type: str, *, silence: float
) -> AsyncGenerator[Frame, None]:
    """An SSE answer's frames (section 5.8). What no control event confirms is dropped, and read again."""
    if media_type(response.headers.get("content-type", "")) != "text/event-stream":
        raise Unavailable("The stream service answered a live read with something that is not one.")
    decoder, payloads = Decoder(), list[bytes]()
    encoded = response.headers.get(STREAM_SSE_DATA_ENCODING, "").lower() == "base64"
    async with aclosing(_pieces(response, silence)) as pieces:
        async for piece in pieces:
            for event in decoder.feed(piece):
                if event.name == "data":
                    payloads.append(_decoded(event.data) if encoded else event.data)
                elif event.name == "control":
                    control = _control(event.data)
                    place.cursor = control.get("streamCursor", place.cursor)
                    yield _confirmed(payloads, control, content_type=content_type, start=place.offset)
                    payloads.clear()


def _confirmed(payloads: list[bytes], control: dict[str, Any], *, content_type: str, start: str) -> Frame:
    closed = control.get("streamClosed") is True
    return _frame(
        content_type,
        _joined(payloads) if is_json(content_type) else b"".join(payloads),
        start=start,
        end=control["streamNextOffset"],
        up_to_date=closed or control.get("upToDate") is True,
        closed=closed,
    )


def _frame(content_type: str, body: bytes, *, start: str, end: str, up_to_date: bool, closed: bool) -> Frame:
    """Offsets are the service's own: that nothing lies between two is told by the body alone.

    Raises ``Unavailable`` for what is garbled: it is read again, and no reader sees it.
    """
    frame = Frame("", content_type, start, end, body, up_to_date, closed)
    empty = not (frame.messages if body and is_json(content_type) else body)
    return frame._replace(start=end) if empty else frame


def _joined(arrays: list[bytes]) -> bytes:
    """JSON arrays as one; the only one stays as it came."""
    if len(arrays) == 1:
        return arrays[0]
    texts = [array.strip() for array in arrays]
    if not all(text.startswith(b"[") and text.endswith(b"]") for text in texts):
        raise Unavailable("The stream service sent something that is not a list of messages.")
    return json_mode.array(b",".join(inside for text in texts if (inside := text[1:-1].strip())))


def _decoded(data: bytes) -> bytes:
    try:
        return b64decode(data.translate(None, b"\n"), validate=True)
    except NotBase64:
        raise Unavailable("The stream service sent something that is not base64.") from None


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
