"""Offsets as readers know them: of a stream that is not its conversation's first, they carry its name."""

import re
from collections.abc import AsyncIterator
from typing import Final

import orjson

from durable_chat.streams.client.sse import Decoder, Event
from durable_chat.streams.protocol import sse
from durable_chat.streams.protocol.exchange import Body, Response
from durable_chat.streams.protocol.headers import STREAM_NEXT_OFFSET
from durable_chat.streams.protocol.offsets import NOW, START

# Two streams have the same offsets for different things. A reader that comes with one of a lost stream
# is known by its mark, and told the new stream from its beginning, whose snapshot replaces all that it has.

_NOTHING: Final = re.compile(r"[0_]+")


def mark_of(conversation_id: str, path: str) -> str:
    """What the offsets of the stream at `path` begin with: nothing if it is the conversation's first."""
    first = f"chat-{conversation_id}"
    return "" if path == first else f"{path.removeprefix(f'{first}-')}_"


def outward(mark: str, offset: str) -> str:
    """The service's offset as readers are told it."""
    return offset if offset in (START, NOW) else mark + offset


def inward(mark: str, offset: str) -> str:
    """A reader's offset as the service knows it; START for one of another stream."""
    if offset in (START, NOW):
        return offset
    return offset.removeprefix(mark) if offset.startswith(mark) else START


def is_before_all(offset: str) -> bool:
    """Whether whoever stands there has read nothing, at whichever service."""
    return _NOTHING.fullmatch(offset) is not None


def marked(mark: str, response: Response) -> Response:
    """The service's answer to a read, with its offsets marked."""
    if not mark:
        return response
    told = dict(response.headers)
    if STREAM_NEXT_OFFSET in told:
        told[STREAM_NEXT_OFFSET] = outward(mark, told[STREAM_NEXT_OFFSET])
    body = response.body if isinstance(response.body, bytes) else _Marked(response.body, mark)
    return response._replace(headers=told, body=body)


class _Marked:
    """A live read of JSON messages, its control events told anew; closed with it."""

    def __init__(self, body: Body, mark: str) -> None:
        self._body = body
        self._mark = mark

    async def __aiter__(self) -> AsyncIterator[bytes]:
        decoder = Decoder()
        async for piece in self._body:
            yield b"".join(self._told(event) for event in decoder.feed(piece)) or sse.KEEP_ALIVE

    async def aclose(self) -> None:
        await self._body.aclose()

    def _told(self, event: Event) -> bytes:
        if event.name != "control":
            return sse.data(event.data)
        told = orjson.loads(event.data)
        return sse.control(
            outward(self._mark, told["streamNextOffset"]),
            cursor=told.get("streamCursor"),
            up_to_date=told.get("upToDate") is True,
            closed=told.get("streamClosed") is True,
        )
