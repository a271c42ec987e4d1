"""Forks: streams that begin as another stream's past (section 4.2)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from durable_chat.streams.protocol import json_mode
from durable_chat.streams.protocol.errors import BadRequest
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.headers import (
    STREAM_FORK_OFFSET,
    STREAM_FORK_SUB_OFFSET,
    STREAM_FORKED_FROM,
    is_json,
)
from durable_chat.streams.protocol.offsets import decode

K = TypeVar("K")

_SUB_OFFSET: Final = re.compile(r"0|[1-9][0-9]{0,14}")

# How the protocol's reference server writes the position 0. Clients were written against it, and its test
# suite forks at it without having been given it.
_ORIGIN: Final = "0000000000000000_0000000000000000"


@dataclass(frozen=True, slots=True)
class Fork:
    """Where a stream leaves another: ``sub_offset`` units into the batch that follows ``position``.

    ``source`` is a path. ``position`` is ``None`` only in a request, and means the source's tail.
    """

    source: str
    position: int | None = None
    sub_offset: int = 0

    def asks_for(self, kept: "Fork | None") -> bool:
        """Whether a stream that was forked so is what this request asks for."""
        return (
            kept is not None
            and self.source == kept.source
            and self.position in {None, kept.position}
            and self.sub_offset == kept.sub_offset
        )


def parse(headers: Mapping[str, str]) -> Fork | None:
    """What a PUT asks for. Its source is named as its own stream is: below the server's root, and decoded.

    Raises ``BadRequest`` for a malformed sub-offset, either offset without a source, or a bad offset.
    """
    source = headers.get(STREAM_FORKED_FROM)
    offset, sub_offset = headers.get(STREAM_FORK_OFFSET), headers.get(STREAM_FORK_SUB_OFFSET)
    if source is None:
        if offset is not None or sub_offset is not None:
            raise BadRequest("Stream-Fork-Offset and Stream-Fork-Sub-Offset need Stream-Forked-From.")
        return None
    if sub_offset is not None and _SUB_OFFSET.fullmatch(sub_offset) is None:
        raise BadRequest("Stream-Fork-Sub-Offset is a number in plain digits without a leading zero.")
    return Fork(source, _position(offset), int(sub_offset or "0"))


def _position(offset: str | None) -> int | None:
    if offset is None:
        return None
    return 0 if offset == _ORIGIN else decode(offset)


def inherit(asked: Expiry, source: Expiry) -> Expiry:
    """The expiry of a fork: its own if it asks for one, else its source's."""
    return source if asked == Expiry() else asked


def part(content_type: str, data: bytes, *, length: int, sub_offset: int) -> bytes:
    """The first ``sub_offset`` units of a batch of ``length``. Raises ``BadRequest`` if it has fewer."""
    if sub_offset > length:
        raise BadRequest("Stream-Fork-Sub-Offset is beyond the batch that follows Stream-Fork-Offset.")
    return json_mode.first(data, sub_offset) if is_json(content_type) else data[:sub_offset]


def pieces(lineage: Iterable[tuple[K, int]], position: int, *, tail: int) -> list[tuple[K, int, int]]:
    """Whose batches make up a stream from ``position`` to ``tail``: (stream, after, up to), in order.

    ``lineage`` is the stream, its source, that one's source and so on, each with the position at which its
    own batches begin. It is followed only as far back as ``position``: near the tail, no further than itself.
    """
    found: list[tuple[K, int, int]] = []
    until = tail
    for stream, start in lineage:
        after = max(start, position)
        if after < until:
            found.append((stream, after, until))
            until = after
        if start <= position:
            break
    return found[::-1]
