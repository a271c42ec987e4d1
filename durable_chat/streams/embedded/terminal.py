"""Between a terminal and a stream: stdin into one, one to stdout, progress to stderr."""

import base64
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from itertools import takewhile
from math import inf
from typing import Any, Final, cast
from uuid import uuid4

import orjson
from django.core.management.base import OutputWrapper

from durable_chat.streams.client import Stamp, StreamClient
from durable_chat.streams.client.backoff import Backoff
from durable_chat.streams.protocol.errors import BadRequest, StreamNotFound, Unavailable
from durable_chat.streams.protocol.exchange import Handler, Request
from durable_chat.streams.protocol.headers import STREAM_CLOSED, STREAM_NEXT_OFFSET, is_json
from durable_chat.streams.protocol.json_mode import array
from durable_chat.streams.protocol.offsets import decode, encode
from durable_chat.streams.stores.base import Page, StreamStore

_AT_ONCE: Final = 256 * 1024  # bytes of stdin in one append, and of a stream in one page
_PATIENCE_SECONDS: Final = 30.0
_PROGRESS_SECONDS: Final = 1.0


@dataclass(slots=True)
class Terminal:
    """Where the command prints: answers to ``out``, everything about them to ``err``."""

    out: OutputWrapper
    err: OutputWrapper
    json: bool
    _told: float = field(default=-inf)

    def facts(self, facts: dict[str, Any]) -> None:
        """Everything about one thing."""
        if self.json:
            self.out.write(orjson.dumps(facts).decode())
            return
        for name, value in facts.items():
            self.out.write(f"{name:12} {'-' if value is None else value}")

    def row(self, facts: dict[str, Any]) -> None:
        """A stream, as one of many."""
        if self.json:
            self.facts(facts)
            return
        state = "closed" if facts["closed"] else "open"
        self.out.write(
            f"{facts['size']:>12} {facts['length']:>10} {state:6} {facts['contentType']:24} {facts['path']}"
        )

    def done(self, facts: dict[str, Any], sentence: str) -> None:
        """What has been done: JSON is an answer, a sentence is about it."""
        if self.json:
            self.facts(facts)
        else:
            self.err.write(sentence)

    def page(self, page: Page) -> None:
        """What a stream holds, as it is: messages a line each, or bytes."""
        json = is_json(page.stream.content_type)
        messages = orjson.loads(array(page.data)) if json else []
        if self.json:
            content = {"messages": messages} if json else {"base64": base64.b64encode(page.data).decode()}
            self.facts({"offset": encode(page.end), "closed": page.closed, **content})
        elif json:
            self.out.write("\n".join(orjson.dumps(message).decode() for message in messages))
        else:
            cast(Any, self.out).buffer.write(page.data)
        self.out.flush()

    def progress(self, page: Page) -> None:
        """How far a long read has come, once a second at most."""
        if page.up_to_date or time.monotonic() < self._told + _PROGRESS_SECONDS:
            return
        self._told = time.monotonic()
        self.err.write(f"{page.end} of {page.stream.tail} ({page.end / page.stream.tail:.0%})")


async def tailed(terminal: Terminal, store: StreamStore, path: str, *, offset: str, follow: bool) -> None:
    """Print a stream from ``offset`` on, until it is closed, or up to date unless it is to be followed."""
    page = await store.read(path, decode(offset), limit=_AT_ONCE)
    tag = page.stream.tag
    try:
        while True:
            if page.end > page.start:
                terminal.page(page)
            terminal.progress(page)
            if page.closed or (page.up_to_date and not follow):
                return
            if page.up_to_date:
                await store.wait(path, page.end, timeout=_patience(page))
            page = await store.read(path, page.end, limit=_AT_ONCE)
            if page.stream.tag != tag:
                raise StreamNotFound
    finally:
        terminal.err.write(f"Go on with --offset {encode(page.end)}.")


def _patience(page: Page) -> float:
    ttl = page.stream.expiry.ttl  # a reader that waits is a use of the stream (section 5.1)
    return _PATIENCE_SECONDS if ttl is None else min(_PATIENCE_SECONDS, ttl / 2)


async def appended(handler: Handler, path: str, *, create: str | None, close: bool) -> tuple[int, str]:
    """Append stdin to a stream as it comes, each piece once; how much it was, and the stream's tail.

    Counts messages of a JSON stream, bytes of any other. Raises ``BadRequest`` for a line that is not JSON;
    what stood before it has been appended.
    """
    client = StreamClient(handler)
    if create is not None:
        await client.create(path, content_type=create)
    head = await client.head(path)
    writer = _Writer(client, path, head.content_type, head.offset)
    count = 0
    for body, length in _messages() if is_json(head.content_type) else _pieces():
        await writer.append(body)
        count += length
    if close:
        await writer.append(b"", close=True)
    return count, writer.tail


def _pieces() -> Iterator[tuple[bytes, int]]:
    while piece := _arrived():
        yield piece, len(piece)


def _messages() -> Iterator[tuple[bytes, int]]:
    """The lines that have come, as the body of one append."""
    number, rest, more = 0, b"", True
    while more:
        piece = _arrived()
        more = bool(piece)
        *lines, rest = (rest + (piece or b"\n")).split(b"\n")
        good = list(takewhile(_may_be_appended, lines))
        messages = [line for line in good if line.strip()]
        if messages:
            yield array(b",".join(messages)), len(messages)
        number += len(good)
        if len(good) < len(lines):
            raise BadRequest(f"Line {number + 1} is not JSON; the {number} before it have been appended.")


def _arrived() -> bytes:
    """What has come, after waiting for some; nothing at the end. It blocks: there is nothing else to do."""
    return cast(BufferedReader, sys.stdin.buffer).read1(_AT_ONCE)


def _may_be_appended(line: bytes) -> bool:
    try:
        if line.strip():
            orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


@dataclass(slots=True)
class _Writer:
    """Appends under a name of its own, so that what has to be sent again is taken once (section 5.2.1)."""

    client: StreamClient
    path: str
    content_type: str
    tail: str
    seq: int = 0
    name: str = field(default_factory=lambda: f"command-{uuid4().hex[:12]}")

    async def append(self, body: bytes, *, close: bool = False) -> None:
        headers = {
            "content-type": self.content_type,
            **Stamp(self.name, 0, self.seq).headers,
            **({STREAM_CLOSED: "true"} if close else {}),
        }
        backoff = Backoff(_PATIENCE_SECONDS)
        while True:
            try:
                async with await self.client.open(Request("POST", self.path, {}, headers, body)) as response:
                    self.tail = response.headers[STREAM_NEXT_OFFSET]
                    self.seq += 1
                    return
            except Unavailable as error:
                await backoff.pause(error)
