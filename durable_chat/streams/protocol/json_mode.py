"""JSON mode: what of a body is stored, and how it is given back (section 9.1)."""

import re
from typing import Final

import orjson

from durable_chat.streams.protocol.errors import BadRequest

# The whitespace of JSON; bytes.strip() alone would also take form feeds, which no JSON text may hold.
_SPACE = b" \t\r\n"

# What tells where a message ends, and the strings in which it would not.
_MARK: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[][{},]')
_DEEPER: Final = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


def messages_of(body: bytes) -> tuple[bytes, int]:
    """A body's messages, as the text that stands between the brackets of a JSON array, and their number.

    One level of array is flattened; the messages' own bytes are kept as they came, so they are never parsed
    or written again. An empty array gives ``(b"", 0)``. Raises ``BadRequest`` unless the body is JSON.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("The body is not valid JSON.") from None
    text = body.strip(_SPACE)
    if not isinstance(value, list):
        return text, 1
    return text[1:-1].strip(_SPACE), len(value)


def first(messages: bytes, count: int) -> bytes:
    """The first ``count`` of what ``messages_of`` gave, in their own bytes."""
    if count == 0:
        return b""
    depth = left = 0
    for mark in _MARK.finditer(messages):
        depth += _DEEPER.get(mark[0], 0)
        if mark[0] == b"," and depth == 0:
            left += 1
            if left == count:
                return messages[: mark.start()]
    return messages


def array(messages: bytes) -> bytes:
    """The body of an answer: what ``messages_of`` gave, or several of them joined by commas."""
    return b"[%b]" % messages
