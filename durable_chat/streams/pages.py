"""A frame as an answer of its own: its headers and its entity tag."""

from durable_chat.streams.hub import Frame
from durable_chat.streams.protocol.headers import (
    STREAM_CLOSED,
    STREAM_CURSOR,
    STREAM_NEXT_OFFSET,
    STREAM_UP_TO_DATE,
)


def describe(frame: Frame, *, cursor: str) -> dict[str, str]:
    """The headers of every read. A cursor is of no use once nothing can follow."""
    headers = {"content-type": frame.content_type, STREAM_NEXT_OFFSET: frame.end}
    if frame.up_to_date:
        headers[STREAM_UP_TO_DATE] = "true"
    if frame.closed:
        headers[STREAM_CLOSED] = "true"
    else:
        headers[STREAM_CURSOR] = cursor
    return headers


def etag(frame: Frame) -> str:
    """The same for the same bytes of the same stream, and another once it is closed (section 10.1)."""
    return f'"{frame.tag}:{frame.start}:{frame.end}{":c" if frame.closed else ""}"'
