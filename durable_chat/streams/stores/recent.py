"""What was appended or read of late, in memory: what a loop can tell without waiting for a thread."""

import sqlite3
import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from durable_chat.streams.protocol.errors import Unavailable
from durable_chat.streams.stores import tables
from durable_chat.streams.stores.base import Page, Stream
from durable_chat.streams.stores.file import File

RECENT_BYTES: Final = 32 * 1024 * 1024

# What Python's own objects take, roughly, so that many small ones count for what they are.
_PER_BATCH: Final = 128
_PER_STREAM: Final = 1024

_STREAMS: Final = 4_096  # whose states are kept until the next commit
_SHARE: Final = 8  # of all the memory, the part that one stream may take: 1/8


@dataclass(slots=True)
class _Window:
    """A stream's batches in a row: ``pieces[i]`` begins at position ``at[i]``.

    ``sizes[i]`` are the bytes of all the pieces before it, those that were dropped too.
    """

    tag: str
    at: list[int]
    sizes: list[int] = field(default_factory=lambda: [0])
    pieces: list[bytes] = field(default_factory=list)
    cost: int = _PER_STREAM

    @property
    def reach(self) -> tuple[int, int]:
        """The greater, the more it is worth: how near it comes to the tail, then how far back it goes."""
        return self.at[-1], -self.at[0]

    def goes_on_with(self, page: Page) -> bool:
        return self.at[-1] == page.start and self.tag == page.stream.tag

    def add(self, page: Page) -> None:
        size = before = self.sizes[-1]
        for end, piece in zip(page.ends, page.pieces, strict=True):
            size += len(piece)
            self.at.append(end)
            self.sizes.append(size)
            self.pieces.append(piece)
        self.cost += size - before + _PER_BATCH * len(page.pieces)

    def trim(self, most: int) -> None:
        """Drop the older half of it when it costs too much, so that this comes to little for each batch."""
        while self.pieces and self.cost > most:
            half = (len(self.pieces) + 1) // 2
            self.cost -= self.sizes[half] - self.sizes[0] + _PER_BATCH * half
            del self.at[:half], self.sizes[:half], self.pieces[:half]

    def page(self, stream: Stream, position: int, *, limit: int) -> Page | None:
        """As ``rules.page`` has it; ``None`` if that is not all here."""
        first, last = self._index(position), self._index(stream.tail)
        if first is None or last is None or stream.tag != self.tag:
            return None
        stop = min(last, bisect_left(self.sizes, self.sizes[first] + limit, first))
        return Page(stream, position, self.at[first + 1 : stop + 1], self.pieces[first:stop])

    def _index(self, position: int) -> int | None:
        index = bisect_left(self.at, position)
        return index if index < len(self.at) and self.at[index] == position else None


class Windows:
    """The last batches of the streams that were used last, ``most`` bytes in all. Usable from any thread.

    What lies between two positions of a stream never changes as long as its tag is the same. So nothing here
    can be out of date, whoever else writes: how far a stream goes by now, and whether it is still there, is
    for the caller to know.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self.size = 0

    def __contains__(self, path: str) -> bool:
        return path in self._windows

    def note(self, noted: Iterable[tuple[str, Page | None]]) -> None:
        """Keep what is at these paths, if there is room; ``None``: nothing is, any more."""
        with self._lock:
            for path, page in noted:
                window = self._windows.get(path)
                if window is not None and page is not None and window.goes_on_with(page):
                    self._extend(path, window, page)
                    continue
                self._take(path)
                if page is not None:
                    self._put(path, _better(window, page))
            while self.size > self._most:
                self._take(next(iter(self._windows)))

    def page(self, path: str, stream: Stream, position: int, *, limit: int) -> Page | None:
        """What a store's ``read`` answers for a stream in this state; ``None`` if that is not all here."""
        with self._lock:
            window = self._windows.get(path)
            if window is None:
                return None
            self._windows.move_to_end(path)
            return window.page(stream, position, limit=limit)

    def clear(self) -> None:
        with self._lock:
            self._windows.clear()
            self.size = 0

    def _extend(self, path: str, window: _Window, page: Page) -> None:
        """What most appends come to."""
        before = window.cost
        window.add(page)
        window.trim(self._most // _SHARE)
        self.size += window.cost - before
        self._windows.move_to_end(path)

    def _take(self, path: str) -> None:
        window = self._windows.pop(path, None)
        self.size -= 0 if window is None else window.cost

    def _put(self, path: str, window: _Window) -> None:
        window.trim(self._most // _SHARE)
        self._windows[path] = window
        self.size += window.cost


def _better(window: _Window | None, page: Page) -> _Window:
    """The window, or the page alone if it is worth more."""
    if window is not None and window.tag == page.stream.tag and window.reach >= (page.end, -page.start):
        return window
    fresh = _Window(page.stream.tag, [page.start])
    fresh.add(page)
    return fresh


class Glance:
    """A connection for the loop itself: it looks up the state of one stream, sooner than a thread wakes.

    Reading in the write-ahead log waits for nobody's lock. Only for streams that have just been used, whose
    rows are in memory: a loop must not wait for the disk. What was found is found again for as long as SQLite
    says (``data_version``) that nobody, here or in another process, has committed anything.
    """

    def __init__(self, file: File) -> None:
        self._file = replace(file, busy_seconds=0)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._version = 0
        self._found: dict[str, Stream | None] = {}  # as long as nobody commits anything

    def open(self) -> None:
        """Be ready, if possible. For a thread, which may wait for the disk."""
        if self._connection is None:
            with suppress(sqlite3.Error, Unavailable):
                self._use(self._file.connect())

    def close(self) -> None:
        """Until it is opened again, nothing is found."""
        self._use(None)

    def _use(self, connection: sqlite3.Connection | None) -> None:
        with self._lock:  # which a loop may wait for: so nothing is opened or closed within it
            before, self._connection = self._connection, connection
            self._found.clear()  # each connection counts versions for itself
        if before is not None:
            with suppress(sqlite3.Error):
                before.close()

    def find(self, path: str) -> Stream | None:
        """What is kept at a path by now; ``None``: nothing, or it cannot be told so."""
        with self._lock:
            if self._connection is None:
                return None
            try:
                return self._look(self._connection, path)
            except sqlite3.Error:
                return None

    def _look(self, connection: sqlite3.Connection, path: str) -> Stream | None:
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version != self._version:
            self._found.clear()
            self._version = version
        if len(self._found) > _STREAMS:
            self._found.clear()
        if path not in self._found:
            row = tables.find(connection, path)  # or a newer one, which the next version will tell
            self._found[path] = None if row is None else row.stream
        return self._found[path]
