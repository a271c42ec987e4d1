"""A drain to PostgreSQL: where it knows the rows from."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from durable_chat.streams.embedded import postgres_tables as tables
from durable_chat.streams.embedded.postgres_connection import Connection, Database, pipelined
from durable_chat.streams.embedded.postgres_memory import Memory
from durable_chat.streams.protocol.producers import ProducerState
from durable_chat.streams.stores.base import Page, Stream
from durable_chat.streams.stores.drain import Drain, Entry, Row, Write


class Unforeseen(Exception):
    """A drain turned out to be about more streams than it had locked. Begun again with them, it is not."""

    def __init__(self, paths: Collection[str]) -> None:
        super().__init__()
        self.paths = paths


class PostgresDrain(Drain):
    """One transaction's. An entry's version is its row's ``xmin``."""

    def __init__(self, database: Database, connection: Connection) -> None:
        super().__init__()
        self.database = database
        self.connection = connection
        self._keys: Iterator[tuple[int]] = iter(())

    def recall(self, writes: Sequence[Write], memory: Memory) -> bool:
        """Begin with what memory has of the streams that the writes are about, and lock nothing.

        Whether it has all that they need. Then ``at_once`` may end the drain.
        """
        for write in writes:
            if write.creates or write.deletes or write.reads or not write.paths:
                return False
            for path in write.paths:
                entry = self.entries.get(path) or self._recall(path, memory)
                if entry is None or (write.producer and write.producer.producer_id not in entry.producers):
                    return False
        return True

    def _recall(self, path: str, memory: Memory) -> Entry | None:
        known = memory.find(path)
        if known is None:
            return None
        row, version, producers, _ = known
        entry = self.entries[path] = Entry(row, row.stream, version, {**producers})
        return entry

    def impart(self, memory: Memory, version: int) -> None:
        """Tell memory what the transaction left, once it is committed; ``version``: of what it wrote."""
        for path, entry in self.entries.items():
            if entry is None or entry.row.stream.deleted:
                memory.forget(path)
                continue
            left = version if path in self.changed else entry.version
            producers = {name: state for name, state in entry.producers.items() if state is not None}
            memory.note(path, entry.row, producers, found=entry.version, left=left)

    def look_up(self, writes: Sequence[Write], *, more: Collection[str] = ()) -> None:
        """Begin, lock the streams that the writes are about and read what they need, in one round trip.

        ``more`` is what they turned out to be about when this was tried before. ``commit`` ends it.
        """
        deleted = [*more, *(path for write in writes if write.deletes for path in write.paths)]
        paths = {*more, *(path for write in writes for path in write.paths)}
        stamped = {
            (path, write.producer.producer_id)
            for write in writes
            if write.producer is not None
            for path in write.paths
        }
        with pipelined(self.connection):
            self.database.begin(self.connection)
            rows = tables.lock(self.connection, paths, deleted)
            producers = tables.producers(self.connection, stamped)
            keys = tables.keys(self.connection, sum(write.creates for write in writes))
        self._enter(paths, rows)
        states = {(path, name): ProducerState(epoch, seq) for path, name, epoch, seq in producers}
        for path, name in stamped:
            entry = self.entries[path]
            if entry is not None:
                entry.producers[name] = states.get((path, name))
        self._keys = iter(keys)

    def look_ahead(self, *paths: str) -> None:
        """Lock more streams, so that they can be deleted: all at once, or two drains may wait crosswise.

        Raises ``Unforeseen`` when others are known already.
        """
        unknown = set(paths) - self.entries.keys()
        if unknown and self.entries:
            raise Unforeseen(unknown)
        if unknown:
            self._enter(unknown, tables.lock(self.connection, unknown, unknown))

    def _enter(self, paths: Iterable[str], rows: Iterable[tuple[Any, ...]]) -> None:
        self.entries.update(dict.fromkeys(paths))
        for path, version, *values in rows:
            row = tables.row(values)
            self.entries[path] = Entry(row, row.stream, version)

    def page(self, row: Row, start: int, *, limit: int) -> Page:
        return tables.page(self.connection, row, start, limit=limit)  # which begins a drain

    def _new(self, path: str, stream: Stream, size: int) -> Entry:
        (key,) = next(self._keys)
        return Entry(Row(key, stream), grown=size)

    def _state(self, entry: Entry, producer_id: str) -> ProducerState | None:
        return entry.producers.get(producer_id)
