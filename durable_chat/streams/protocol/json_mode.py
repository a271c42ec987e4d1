"""JSON mode: what of a body is stored, and how it is given back (section 9.1)."""

import orjson

from durable_chat.streams.protocol.errors import BadRequest

# The whitespace of JSON; bytes.strip() alone would also take form feeds, which no JSON text may hold.
_SPACE = b" \t\r\n"


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


def array(messages: bytes) -> bytes:
    """The body of an answer: what ``messages_of`` gave, or several of them joined by commas."""
    return b"[%b]" % messages
