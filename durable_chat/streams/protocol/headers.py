"""The protocol's headers: their names, and what a request's mean (section 13.2)."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

STREAM_CLOSED: Final = "stream-closed"
STREAM_CURSOR: Final = "stream-cursor"
STREAM_EXPIRES_AT: Final = "stream-expires-at"
STREAM_FORK_OFFSET: Final = "stream-fork-offset"
STREAM_FORK_SUB_OFFSET: Final = "stream-fork-sub-offset"
STREAM_FORKED_FROM: Final = "stream-forked-from"
STREAM_NEXT_OFFSET: Final = "stream-next-offset"
STREAM_SEQ: Final = "stream-seq"
STREAM_SSE_DATA_ENCODING: Final = "stream-sse-data-encoding"
STREAM_TTL: Final = "stream-ttl"
STREAM_UP_TO_DATE: Final = "stream-up-to-date"
PRODUCER_EPOCH: Final = "producer-epoch"
PRODUCER_ID: Final = "producer-id"
PRODUCER_SEQ: Final = "producer-seq"

LONGEST_NAME: Final = 1024
"""Of how many characters a path, a Producer-Id and a Stream-Seq are at most."""

JSON: Final = "application/json"
DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"

BROWSER: Final[Mapping[str, str]] = {
    "access-control-allow-origin": "*",
    "access-control-expose-headers": (
        "Stream-Next-Offset, Stream-Cursor, Stream-Up-To-Date, Stream-Closed, Stream-TTL, Stream-Expires-At, "
        "Stream-SSE-Data-Encoding, Producer-Epoch, Producer-Seq, Producer-Expected-Seq, "
        "Producer-Received-Seq, ETag, Location, Retry-After"
    ),
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "cross-origin",
}
"""On every answer over HTTP (section 12.7). ``*`` lets no cookies through: a token says who may read."""

PREFLIGHT: Final[Mapping[str, str]] = {
    "access-control-allow-methods": "GET, HEAD, PUT, POST, DELETE, OPTIONS",
    "access-control-allow-headers": (
        "Authorization, Content-Type, If-None-Match, Stream-Seq, Stream-TTL, Stream-Expires-At, "
        "Stream-Closed, Stream-Forked-From, Stream-Fork-Offset, Stream-Fork-Sub-Offset, Producer-Id, "
        "Producer-Epoch, Producer-Seq"
    ),
    "access-control-max-age": "86400",
}
"""On the answer to OPTIONS, besides ``BROWSER``."""


def asks_to_close(headers: Mapping[str, str]) -> bool:
    """Whether ``Stream-Closed`` is set: any value but ``true`` is as good as none (section 4.1)."""
    return headers.get(STREAM_CLOSED, "").lower() == "true"


def matches(if_none_match: str, tag: str) -> bool:
    """Whether a reader who sends this ``If-None-Match`` has what ``tag`` stands for."""
    known = {candidate.strip().removeprefix("W/") for candidate in if_none_match.split(",")}
    return tag in known or "*" in known


@lru_cache  # the same few, several times a request
def media_type(content_type: str) -> str:
    """What content types are compared by: ``type/subtype`` in lower case, without parameters."""
    return content_type.partition(";")[0].strip().lower()


def is_json(content_type: str) -> bool:
    """Whether a stream of this type keeps messages apart (section 9.1)."""
    return media_type(content_type) == JSON


def is_text(content_type: str) -> bool:
    """Whether SSE carries this type as it is; anything else travels in base64 (section 5.8)."""
    return is_json(content_type) or media_type(content_type).startswith("text/")
