"""Server-sent events: a data event and the control event that closes it (section 5.8)."""

import re
from base64 import b64encode
from typing import Final

import orjson

KEEP_ALIVE: Final = b": keep-alive\n\n"

# All three ways to end a line end one for a client, so none may pass through a payload unmarked.
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")


def data(payload: bytes) -> bytes:
    """A data event of text. A line break inside, however it is written, reaches the reader as ``\\n``."""
    lines = b"\ndata:".join(_guarded(line) for line in _LINE_END.split(payload))
    return b"event: data\ndata:%b\n\n" % lines


def binary(payload: bytes) -> bytes:
    """A data event of bytes, in base64."""
    return b"event: data\ndata:%b\n\n" % b64encode(payload)


def control(next_offset: str, *, cursor: str | None, up_to_date: bool, closed: bool) -> bytes:
    """The control event that follows every data event. ``cursor`` is left out once the stream is closed."""
    fields: dict[str, str | bool] = {"streamNextOffset": next_offset}
    if cursor is not None and not closed:
        fields["streamCursor"] = cursor
    if up_to_date:
        fields["upToDate"] = True
    if closed:
        fields["streamClosed"] = True
    return b"event: control\ndata:%b\n\n" % orjson.dumps(fields)


def _guarded(line: bytes) -> bytes:
    # A reader drops one space after the colon: a line that begins with one needs another in front of it.
    return b" " + line if line.startswith(b" ") else line
