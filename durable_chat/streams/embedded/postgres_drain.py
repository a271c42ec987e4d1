"""All that is queued, as one transaction: what it is about, and what is decided about it, in memory."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from durable_chat.streams.embedded import postgres_tables as tables
from durable_chat.streams.embedded.postgres_connection import Connection, Database, pipelined
from durable_chat.streams.embedded.postgres_memory import Memory
from durable_chat.streams.embedded.postgres_tables import Row
from durable_chat.streams.protocol.producers import ProducerStamp, ProducerState
from durable_chat.streams.stores import rules
from durable_chat.streams.stores.base import Batch, Page, Stream


@dataclass(frozen=True, slots=True)
class Write:
    """Work on a drain, and what is best looked up before it begins. ``size`` is what it adds, in bytes.

    One that ``reads`` wants what was asked for before it to be in the tables, so it begins a drain.
    """

    work: Callable[["Drain"], Any]
    paths: tuple[str, ...] = ()
    producer: ProducerStamp | None = None
    creates: bool = False
    deletes: bool = False
    reads: bool = False
    size: int = 0

    def __call__(self, drain: "Drain") -> Any:
        return self.work(drain)


class Unforeseen(Exception):
    """A drain turned out to be about more streams than it had locked. Begun again with them, it is not."""

    def __init__(self, paths: Collection[str]) -> None:
        super().__init__()
        self.paths = paths


@dataclass(slots=True)
class Entry:
    """A stream as it is by now.

    ``before`` is what its row says, if there is one, and ``version`` its ``xmin``. ``producers`` are those
    that were asked for, ``None`` if the stream remembers none by that id; ``stamped`` are those that changed.
    ``grown`` is in bytes.
    """

    row: Row
    before: Stream | None = None
    version: int = 0
    producers: dict[str, ProducerState | None] = field(default_factory=dict)
    stamped: set[str] = field(default_factory=set)
    grown: int = 0

    @property
    def changed(self) -> bool:
        return self.row.stream is not self.before


@dataclass(slots=True)
class Drain:
    """What a transaction knows, and is to write when it ends.

    ``moved`` is the tail of each stream that got one; ``None``: closed or gone. ``forgotten`` are the keys of
    streams whose producers are to go, ``erased`` of those that are to go altogether. A batch is the stream's
    key, its end, its start and its bytes.
    """

    database: Database
    connection: Connection
    moved: dict[str, int | None] = field(default_factory=dict)
    entries: dict[str, Entry | None] = field(default_factory=dict)
    forgotten: list[int] = field(default_factory=list)
    erased: list[int] = field(default_factory=list)
    batches: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    _keys: Iterator[tuple[int]] = field(default_factory=lambda: iter(()))

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
        entry = self.entries[path] = Entry(row, row.stream, version, dict(producers))
        return entry

    def impart(self, memory: Memory, version: int) -> None:
        """Tell memory what the transaction left, once it is committed; ``version``: of what it wrote."""
        for path, entry in self.entries.items():
            if entry is None:
                memory.forget(path)
            else:
                left = version if entry.changed else entry.version
                memory.note(path, entry.row, entry.producers, found=entry.version, left=left)

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

    def look_ahead(self, paths: Iterable[str]) -> None:
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

    def find(self, path: str) -> Row | None:
        """What is kept at a path, expired and deleted or not."""
        self.look_ahead((path,))
        entry = self.entries[path]
        return None if entry is None else entry.row

    def producer_of(self, path: str, stamp: ProducerStamp) -> ProducerState | None:
        """What the stream remembers of the producer that signs itself so, if that was looked up."""
        return self._there(path).producers.get(stamp.producer_id)

    def page(self, row: Row, start: int, *, limit: int) -> Page:
        """What follows a position in the tables, so for a write that ``reads``."""
        return tables.page(self.connection, row, start, limit=limit)

    def insert(self, path: str, stream: Stream, batch: Batch) -> None:
        """A new stream with its first batch."""
        (key,) = next(self._keys)
        self.entries[path] = Entry(Row(key, stream))
        self._add(path, batch)

    def append(self, path: str, stream: Stream, batch: Batch) -> None:
        """What an append makes of a stream, and its batch."""
        self.update(path, stream)
        self._add(path, batch)
        if self.moved.get(path, 0) is not None:  # gone wakes everybody, also if there is another by now
            self.moved[path] = None if stream.closed else stream.tail

    def update(self, path: str, stream: Stream) -> Row:
        """A stream's new state."""
        entry = self._there(path)
        entry.row = Row(entry.row.id, stream)
        return entry.row

    def remember(self, path: str, stamp: ProducerStamp) -> None:
        """Note a producer's batch as its last."""
        entry = self._there(path)
        entry.producers[stamp.producer_id] = ProducerState(stamp.epoch, stamp.seq)
        entry.stamped.add(stamp.producer_id)

    def delete(self, path: str) -> None:
        """Delete a stream: now, or once its last fork has ended."""
        row = self.update(path, self._there(path).row.stream._replace(deleted=True))
        self.moved[path] = None
        self._forget(path)
        while rules.is_left(row.stream):
            self._erase(path)
            if row.stream.fork is None:
                return
            path = row.stream.fork.source
            self.look_ahead((path,))
            row = self.update(path, rules.released(self._there(path).row.stream))

    def _there(self, path: str) -> Entry:
        entry = self.entries[path]
        assert entry is not None
        return entry

    def _add(self, path: str, batch: Batch) -> None:
        if batch.length:
            entry = self._there(path)
            tail = entry.row.stream.tail
            entry.grown += len(batch.data)
            self.batches.append((entry.row.id, tail, tail - batch.length, batch.data))

    def _forget(self, path: str) -> None:
        entry = self._there(path)
        entry.stamped.clear()
        self.forgotten.append(entry.row.id)

    def _erase(self, path: str) -> None:
        gone = self._there(path)
        self.entries[path] = None
        self.batches = [batch for batch in self.batches if batch[0] != gone.row.id]
        if gone.before is not None:
            self.erased.append(gone.row.id)
