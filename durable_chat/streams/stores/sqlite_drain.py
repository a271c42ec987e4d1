"""What the SQLite store's one writer knows of the file, and what it is about to write to it."""

import sqlite3
from contextlib import suppress
from typing import Final

from durable_chat.streams.protocol.errors import PayloadTooLarge
from durable_chat.streams.protocol.producers import ProducerState
from durable_chat.streams.stores import tables
from durable_chat.streams.stores.base import Batch, Page, Stream
from durable_chat.streams.stores.drain import Drain, Entry, Row

_STREAMS: Final = 4_096  # that are remembered
_PRODUCERS: Final = 64  # of one of them, but for those that write in the same transaction


class SQLiteDrain(Drain):
    """Goes on from one transaction to the next: what it knows stays true until somebody else commits.

    Which SQLite tells (``data_version``) once the transaction has the file to itself. What is decided is
    written at the end, or as soon as something is to be read. ``written`` is what was appended where, in
    order; None: the stream was deleted. ``purge``: something was erased, and is still in the log.
    """

    def __init__(self) -> None:
        super().__init__()
        self._connection: sqlite3.Connection | None = None
        self._version = 0
        self.written: list[tuple[str, Page | None]] = []
        self.purge = False

    @property
    def connection(self) -> sqlite3.Connection:
        assert self._connection is not None
        return self._connection

    def begin(self, connection: sqlite3.Connection) -> None:
        """Have the file to itself."""
        if connection is not self._connection:  # each counts versions for itself
            self.entries.clear()
            self._connection = connection
        connection.execute("BEGIN IMMEDIATE")
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version != self._version or len(self.entries) > _STREAMS:
            self.entries.clear()
            self._version = version

    def commit(self) -> None:
        """What has been flushed is to last."""
        self.connection.execute("COMMIT")

    def roll_back(self) -> None:
        """Nothing of it has been, and nothing is known any more."""
        with suppress(sqlite3.Error):  # it has been closed, or will be
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        self._connection = None
        self._settle()
        self.entries.clear()
        self.take()

    def take(self) -> tuple[dict[str, int | None], list[tuple[str, Page | None]]]:
        """``moved`` and ``written`` of the last transaction, once."""
        taken = self.moved, self.written
        self.moved, self.written = {}, []
        return taken

    def flush(self) -> None:
        """Have the tables say what is known by now."""
        connection = self.connection
        if self.forgotten:
            tables.forget(connection, self.forgotten)
            self.purge = True
        if self.erased:
            tables.erase(connection, self.erased)
        if self.changed:
            changed = self.changed.values()
            tables.update(connection, [entry for entry in changed if entry.row.stream is not entry.before])
            tables.remember(connection, [entry for entry in changed if entry.stamped])
        if self.batches:
            tables.add(connection, self.batches)
        self._settle()

    def _settle(self) -> None:
        for entry in self.changed.values():
            entry.before, entry.grown = entry.row.stream, 0
            entry.stamped.clear()
        for done in (self.changed, self.forgotten, self.erased, self.batches):
            done.clear()

    def look_ahead(self, *paths: str) -> None:
        for path in set(paths) - self.entries.keys():  # what is known already is newer than its row
            row = tables.find(self.connection, path)
            self.entries[path] = None if row is None else Entry(row, row.stream)

    def page(self, row: Row, start: int, *, limit: int) -> Page:
        self.flush()
        return tables.page(self.connection, row, start, limit=limit)

    def append(self, path: str, stream: Stream, batch: Batch) -> None:
        if stream.tail > tables.LONGEST:
            raise PayloadTooLarge("The stream is as long as a stream in SQLite can be.")
        super().append(path, stream, batch)

    def delete(self, path: str) -> None:
        self.written.append((path, None))
        super().delete(path)

    def _new(self, path: str, stream: Stream, size: int) -> Entry:
        self.flush()  # or what is erased would still be there
        return Entry(Row(tables.insert(self.connection, path, stream, size=size), stream), stream)

    def _state(self, entry: Entry, producer_id: str) -> ProducerState | None:
        if producer_id in entry.producers:
            return entry.producers[producer_id]
        if len(entry.producers) >= _PRODUCERS and not entry.stamped:
            entry.producers.clear()
        return tables.producer_of(self.connection, entry.row, producer_id)

    def _add(self, path: str, row: Row, batch: Batch) -> None:
        super()._add(path, row, batch)
        self.written.append((path, Page.of(row.stream, batch)))
