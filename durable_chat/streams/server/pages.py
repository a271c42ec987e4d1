"""A page of a stream as an answer: its body, its headers, its entity tag."""

from durable_chat.streams.protocol import json_mode
from durable_chat.streams.protocol.headers import (
    STREAM_CLOSED,
    STREAM_CURSOR,
    STREAM_NEXT_OFFSET,
    STREAM_UP_TO_DATE,
    is_json,
)
from durable_chat.streams.protocol.offsets import encode
from durable_chat.streams.stores.base import Page


def body(page: Page) -> bytes:
    """The bytes of a page; a JSON stream's are one array, be it empty (section 9.1.5)."""
    return json_mode.array(page.data) if is_json(page.stream.content_type) else page.data


def describe(page: Page, *, cursor: str) -> dict[str, str]:
    """The headers of every read. A cursor is of no use once nothing can follow."""
    headers = {"content-type": page.stream.content_type, STREAM_NEXT_OFFSET: encode(page.end)}
    if page.up_to_date:
        headers[STREAM_UP_TO_DATE] = "true"
    if page.closed:
        headers[STREAM_CLOSED] = "true"
    else:
        headers[STREAM_CURSOR] = cursor
    return headers


def etag(page: Page) -> str:
    """The same for the same bytes of the same stream, and another once it is closed (section 10.1)."""
    return f'"{page.stream.tag}:{page.start}:{page.end}{":c" if page.closed else ""}"'
