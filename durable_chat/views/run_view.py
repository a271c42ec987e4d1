"""One run as a stream of its own: the conversation's chunks in a dialect, closed at the run's end."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

import orjson

from durable_chat.chunks import Chunk
from durable_chat.connections import in_database
from durable_chat.dialects import AISDK, Item, Transcoder
from durable_chat.exceptions import BadInput
from durable_chat.models import Conversation, Run
from durable_chat.streams.client import StreamClient
from durable_chat.streams.client.sse import Decoder, Event
from durable_chat.streams.protocol import sse
from durable_chat.streams.protocol.exchange import Body, Request, Response
from durable_chat.streams.protocol.offsets import NOW, START
from durable_chat.views.recounting import recount
from durable_chat.views.waiting import is_withdrawn, until_withdrawn, withdrawal

_OFFSET: Final = re.compile("[0-9]{16}")


@dataclass(slots=True)
class _Position:
    """How far the run has been translated.

    The view's own offsets count the chunks since the first that tells anything, because a run that waits is
    looked for from before its start. A reader that resumes is served by translating from the start again and
    keeping back what it has: a transcoder knows what it has opened, a chunk does not.
    """

    transcoder: Transcoder
    had: int
    count: int = 0

    def items(self, chunks: list[Chunk]) -> list[Item]:
        """What these chunks tell a reader that has the first `had` ones."""
        told: list[Item] = []
        for chunk in chunks:
            if self.transcoder.done:
                break
            items = self.transcoder.feed(chunk)
            self.count += bool(items or self.count)
            told += items if self.count > self.had else []
        return told

    @property
    def offset(self) -> str:
        return f"{max(self.count, self.had):016d}"

    def last_event(self, items: list[Item]) -> bytes:
        """The end of a live read, after which there is nothing to read."""
        told = sse.data(orjson.dumps(items)) if items else b""
        return told + sse.control(self.offset, cursor=None, up_to_date=True, closed=True)


async def read_run(
    streams: StreamClient, conversation: Conversation, run: Run, *, query: Mapping[str, str]
) -> Response:
    """The answer to one read of a run (protocol sections 5.6 to 5.8). Raises BadInput, StreamError.

    The stream of a run that waits for its turn is empty and open; one that was withdrawn is closed.
    """
    position = _Position(AISDK().transcoder(run.pk), _had(query.get("offset", START)))
    live, cursor, path = query.get("live"), query.get("cursor"), conversation.stream_path
    now = query.get("offset") == NOW
    if is_withdrawn(run):
        return _at_once([withdrawal(run)], position, live=live)
    if run.start_offset == Run.LOST:
        # Its chunks were counted in another stream: whoever had some, or wants none, is told only the end.
        told = await in_database(recount, run)
        return _at_once(told[-1:] if position.had or now else told, replace(position, had=0), live=live)
    start = run.start_offset or conversation.offset
    if live == "sse" and not now:
        return await _sse(streams, path, start, position=position, cursor=cursor, run=run)
    items, tail = await _caught_up(streams, path, start, position=position)
    if now:
        items, position.had = [], position.count
    if live == "sse":
        return await _sse(streams, path, tail, position=position, cursor=cursor, run=run)
    headers = {}
    if live and not items and not position.transcoder.done:
        ask = {"live": live, "offset": tail} | ({"cursor": cursor} if cursor else {})
        async with await streams.open(Request("GET", path, ask)) as response:
            body = await response.read()
            headers = {"stream-cursor": response.headers.get("stream-cursor", "")}
        items = position.items(orjson.loads(body or b"[]"))
    return _page(items, position, headers=headers, waited=live is not None)


def _at_once(chunks: list[Chunk], position: _Position, *, live: str | None) -> Response:
    """The answer for a run that ends with these chunks, and has no others."""
    items = position.items(chunks)
    if live != "sse":
        return _page(items, position, headers={}, waited=live is not None)
    return Response(200, {"content-type": "text/event-stream"}, position.last_event(items))


def _page(items: list[Item], position: _Position, *, headers: Mapping[str, str], waited: bool) -> Response:
    done = position.transcoder.done
    told = {"stream-next-offset": position.offset, "stream-up-to-date": "true", **headers}
    told |= {"stream-closed": "true"} if done else {}
    if waited and not items:
        return Response(204, told)
    return Response(200, {**told, "content-type": "application/json"}, orjson.dumps(items))


async def _caught_up(
    streams: StreamClient, path: str, offset: str, *, position: _Position
) -> tuple[list[Item], str]:
    """Everything there is of the run, and where in the conversation that ends."""
    items: list[Item] = []
    while True:
        batch = await streams.read(path, offset=offset)
        items += position.items(list(batch.items))
        offset = batch.offset
        if batch.up_to_date or position.transcoder.done:
            return items, offset


async def _sse(
    streams: StreamClient, path: str, offset: str, *, position: _Position, cursor: str | None, run: Run
) -> Response:
    query = {"live": "sse", "offset": offset} | ({"cursor": cursor} if cursor else {})
    response = await streams.open(Request("GET", path, query, {"accept": "text/event-stream"}))
    headers = {"content-type": "text/event-stream"}
    if isinstance(response.body, bytes):
        return Response(200, headers, response.body)
    return Response(200, headers, _Live(response.body, position, run))


class _Live:
    """The conversation's live read, translated event by event; closed with it."""

    def __init__(self, body: Body, position: _Position, run: Run) -> None:
        self._body = body
        self._position = position
        self._run = run
        self._items: list[Item] = []  # for the control event that follows, in whichever piece
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        decoder = Decoder()
        async with aclosing(until_withdrawn(self._body, self._run)) as pieces:
            async for piece in pieces:
                yield b"".join(self._told(event) for event in decoder.feed(piece)) or sse.KEEP_ALIVE
                if self._closed:
                    return
        if is_withdrawn(self._run):
            yield self._position.last_event(self._position.items([withdrawal(self._run)]))

    async def aclose(self) -> None:
        await self._body.aclose()

    def _told(self, event: Event) -> bytes:
        if event.name == "data":
            self._items += self._position.items(orjson.loads(event.data))
        if event.name != "control" or self._behind():
            return b""
        items, self._items = self._items, []
        data = sse.data(orjson.dumps(items)) if items else b""
        return data + self._control(orjson.loads(event.data))

    def _behind(self) -> bool:
        """Still within what the reader has: nothing to tell but the end, not even that it is up to date."""
        return self._position.count < self._position.had and not self._position.transcoder.done

    def _control(self, told: dict[str, object]) -> bytes:
        self._closed = done = self._position.transcoder.done
        cursor = told.get("streamCursor")
        return sse.control(
            self._position.offset,
            cursor=cursor if isinstance(cursor, str) else None,
            up_to_date=done or told.get("upToDate") is True,
            closed=done or told.get("streamClosed") is True,
        )


def _had(offset: str) -> int:
    if offset in (START, NOW):
        return 0
    if not _OFFSET.fullmatch(offset):
        raise BadInput('The "offset" of a run is one that an earlier answer gave.')
    return int(offset)
