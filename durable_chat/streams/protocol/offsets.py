"""Offsets: opaque text that sorts like the positions it stands for (section 8)."""

from typing import Final

from durable_chat.streams.protocol.errors import InvalidOffset

START: Final = "-1"
NOW: Final = "now"

# A position counts what the stream's unit is: messages of a JSON stream, bytes of any other. Sixteen digits
# hold every position below 2**53, so text and number sort alike for as long as a stream can live.
_WIDTH: Final = 16


def encode(position: int) -> str:
    """The offset of a position."""
    return str(position).zfill(_WIDTH)


def decode(offset: str) -> int | None:
    """The position of an offset; ``None`` is the tail, wherever it is when the stream is read.

    Raises ``InvalidOffset`` for text that ``encode`` cannot have written.
    """
    if offset == START:
        return 0
    if offset == NOW:
        return None
    if len(offset) != _WIDTH or not (offset.isascii() and offset.isdigit()):
        raise InvalidOffset
    return int(offset)
