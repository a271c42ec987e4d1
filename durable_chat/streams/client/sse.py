"""Server-sent events from bytes, however they are cut."""

from collections.abc import Iterator
from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One dispatched event; ``data`` is UTF-8 as it came, its lines joined by LF."""

    name: str
    data: bytes


class Decoder:
    """Takes a body piece by piece, in time linear in its length.

    Lines end with LF, CR or CRLF and with nothing else: JSON may hold U+2028 and U+0085 raw. Comments, ``id``
    and ``retry`` are passed over, and so is an event that the body's end cuts off.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # of a line whose end has not come
        self._after_cr = False
        self._first = True
        self._name = ""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that ``piece`` completes. Exhaust it before feeding the next."""
        for line in self._lines(piece):
            if line:
                self._field(line)
            elif event := self._dispatch():
                yield event

    def _lines(self, piece: bytes) -> Iterator[bytes]:
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]  # the second half of a CRLF
        elif not piece:
            return
        self._after_cr = piece.endswith(b"\r")
        for line in piece.splitlines(keepends=True):  # of bytes: LF, CR and CRLF only
            self._rest.append(line)
            if line.endswith((b"\n", b"\r")):
                yield self._take()

    def _take(self) -> bytes:
        line = b"".join(self._rest).rstrip(b"\r\n")
        self._rest.clear()
        if self._first:
            self._first = False
            return line.removeprefix(_BOM)
        return line

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._name = value.decode(errors="replace")

    def _dispatch(self) -> Event | None:
        name, data = self._name or "message", self._data
        self._name, self._data = "", []
        return Event(name, b"\n".join(data)) if data else None
