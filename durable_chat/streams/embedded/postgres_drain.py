"""All that is queued, as one transaction: look up and lock, decide in memory, write at once."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from psycopg.types.numeric import Int8

from durable_chat.streams.embedded import postgres_tables as tables
from durable_chat.streams.embedded.postgres_connection import Connection, Database, pipelined
from durable_chat.streams.embedded.postgres_tables import COLUMNS, Row
from durable_chat.streams.protocol.producers import ProducerStamp, ProducerState
from durable_chat.streams.stores import rules
from durable_chat.streams.stores.base import Batch, Page, Stream

CHANNEL: Final = "'durable_streams_' || 'durable_streams_stream'::regclass::oid"  # one a schema
_PAYLOAD_BYTES: Final = 7_900  # PostgreSQL takes fewer than 8 000

# By key, so that two processes which want the same streams never wait for each other crosswise.
_LOCK: Final = f"""
SELECT s.path, {COLUMNS} FROM durable_streams_stream s WHERE s.path = ANY(%s) ORDER BY s.id FOR UPDATE
"""  # noqa: S608 - constants
# A delete may end in a source: what it will want is locked in the same order, before it holds anything.
_LOCK_LINEAGES: Final = f"""
WITH RECURSIVE lineage (path, source) AS (
    SELECT s.path, s.source FROM durable_streams_stream s WHERE s.path = ANY(%s)
    UNION
    SELECT s.path, s.source FROM durable_streams_stream s JOIN lineage ON s.path = lineage.source
)
SELECT s.path, {COLUMNS} FROM durable_streams_stream s
WHERE s.path = ANY(ARRAY(SELECT path FROM lineage) || %s) ORDER BY s.id FOR UPDATE
"""  # noqa: S608 - constants
# A statement of its own, behind the lock: it sees what the lock's last holder committed.
_PRODUCERS: Final = """
SELECT s.id, p.producer_id, p.epoch, p.seq
FROM unnest(%s::text[], %s::text[]) AS wanted (path, producer_id)
JOIN durable_streams_stream s ON s.path = wanted.path
JOIN durable_streams_producer p ON p.stream_id = s.id AND p.producer_id = wanted.producer_id
"""
_KEYS: Final = """
SELECT nextval(pg_get_serial_sequence('durable_streams_stream', 'id')) FROM generate_series(1, %s)
"""
_FORGET: Final = "DELETE FROM durable_streams_producer WHERE stream_id = ANY(%s::bigint[])"
_ERASE: Final = (
    "DELETE FROM durable_streams_batch WHERE stream_id = ANY(%s::bigint[])",
    "DELETE FROM durable_streams_stream WHERE id = ANY(%s::bigint[])",
)
_INSERT: Final = """
INSERT INTO durable_streams_stream (
    id, path, tag, content_type, ttl, expires_at, source, position, sub_offset, tail, touched, ends, size,
    closed, closer, closer_epoch, closer_seq, last_seq, forks, deleted
) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
# What most drains come to, as one statement: another takes as long as several appends.
_APPEND: Final = """
WITH advanced AS (
    UPDATE durable_streams_stream AS s
    SET tail = n.tail, touched = n.touched, ends = n.ends, size = s.size + n.size
    FROM unnest(%s::bigint[], %s::bigint[], %s::float8[], %s::float8[], %s::bigint[])
         AS n (id, tail, touched, ends, size)
    WHERE s.id = n.id
)
INSERT INTO durable_streams_batch (stream_id, finish, start, data)
SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %b::bytea[])
"""
_UPDATE: Final = """
UPDATE durable_streams_stream
SET tail = %s, touched = %s, ends = %s, size = size + %s, closed = %s, closer = %s, closer_epoch = %s,
    closer_seq = %s, last_seq = %s, forks = %s, deleted = %s
WHERE id = %s
"""
_REMEMBER: Final = """
INSERT INTO durable_streams_producer (stream_id, producer_id, epoch, seq)
SELECT * FROM unnest(%s::bigint[], %s::text[], %s::bigint[], %s::bigint[])
ON CONFLICT (stream_id, producer_id) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq
"""
_NOTIFY: Final = f"SELECT pg_notify({CHANNEL}, %s)"


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
class _Entry:
    """A stream as it is by now. ``before`` is what its row says, if there is one; ``grown`` is in bytes."""

    row: Row
    before: Stream | None
    grown: int = 0


@dataclass(slots=True)
class Drain:
    """What a transaction knows, and is to write when it ends.

    ``moved`` is the tail of each stream that got one; ``None``: closed or gone.
    """

    database: Database
    connection: Connection
    moved: dict[str, int | None] = field(default_factory=dict)
    _entries: dict[str, _Entry | None] = field(default_factory=dict)
    _producers: dict[tuple[int, str], ProducerState] = field(default_factory=dict)
    _stamped: set[tuple[int, str]] = field(default_factory=set)
    _keys: Iterator[tuple[int]] = field(default_factory=lambda: iter(()))
    _forgotten: list[int] = field(default_factory=list)
    _erased: list[int] = field(default_factory=list)
    _batches: list[tuple[int, int, int, bytes]] = field(default_factory=list)

    def look_up(self, writes: Sequence[Write], *, more: Collection[str] = ()) -> None:
        """Begin, lock the streams that the writes are about and read what they need, in one round trip.

        ``more`` is what they turned out to be about when this was tried before.
        """
        deleted = [*more, *(path for write in writes if write.deletes for path in write.paths)]
        paths = {*more, *(path for write in writes for path in write.paths)}
        stamped = {
            (path, write.producer.producer_id)
            for write in writes
            if write.producer is not None
            for path in write.paths
        }
        creates = sum(write.creates for write in writes)
        execute = self.connection.execute
        with pipelined(self.connection):
            self.database.begin(self.connection)
            rows = self._lock(paths, deleted)
            producers = execute(_PRODUCERS, _columns(stamped, 2), binary=True) if stamped else ()
            keys = execute(_KEYS, (Int8(creates),), binary=True) if creates else ()
        self._enter(paths, rows)
        self._producers.update(
            ((key, name), ProducerState(epoch, seq)) for key, name, epoch, seq in producers
        )
        self._keys = iter(keys)

    def look_ahead(self, paths: Iterable[str]) -> None:
        """Lock more streams, so that they can be deleted: all at once, or two drains may wait crosswise.

        Raises ``Unforeseen`` when others are locked already.
        """
        unknown = set(paths) - self._entries.keys()
        if unknown and self._entries:
            raise Unforeseen(unknown)
        if unknown:
            self._enter(unknown, self._lock(unknown, unknown))

    def _lock(self, paths: Collection[str], deleted: Collection[str]) -> Iterable[tuple[Any, ...]]:
        if not deleted:
            return self.connection.execute(_LOCK, (list(paths),), binary=True)
        return self.connection.execute(_LOCK_LINEAGES, (list(deleted), list(paths)), binary=True)

    def _enter(self, paths: Iterable[str], rows: Iterable[tuple[Any, ...]]) -> None:
        found = {path: tables.row(values) for path, *values in rows}
        entries = {path: _Entry(row, row.stream) for path, row in found.items()}
        # What is known already is newer here than in its row.
        self._entries = {**dict.fromkeys(paths), **entries, **self._entries}

    def find(self, path: str) -> Row | None:
        """What is kept at a path, expired and deleted or not."""
        self.look_ahead((path,))
        entry = self._entries[path]
        return None if entry is None else entry.row

    def producer_of(self, row: Row, stamp: ProducerStamp) -> ProducerState | None:
        """What the stream remembers of the producer that signs itself so, if that was looked up."""
        return self._producers.get((row.id, stamp.producer_id))

    def page(self, row: Row, start: int, *, limit: int) -> Page:
        """What follows a position in the tables, so for a write that ``reads``."""
        return tables.page(self.connection, row, start, limit=limit)

    def insert(self, path: str, stream: Stream, batch: Batch) -> None:
        """A new stream with its first batch."""
        (key,) = next(self._keys)
        self._entries[path] = _Entry(Row(key, stream), None)
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

    def remember(self, row: Row, stamp: ProducerStamp) -> None:
        """Note a producer's batch as its last."""
        self._producers[row.id, stamp.producer_id] = ProducerState(stamp.epoch, stamp.seq)
        self._stamped.add((row.id, stamp.producer_id))

    def delete(self, path: str) -> None:
        """Delete a stream: now, or once its last fork has ended."""
        row = self.update(path, self._there(path).row.stream._replace(deleted=True))
        self.moved[path] = None
        self._forget(row.id)
        while rules.is_left(row.stream):
            self._erase(path)
            if row.stream.fork is None:
                return
            path = row.stream.fork.source
            self.look_ahead((path,))
            row = self.update(path, rules.released(self._there(path).row.stream))

    def _there(self, path: str) -> _Entry:
        entry = self._entries[path]
        assert entry is not None
        return entry

    def _add(self, path: str, batch: Batch) -> None:
        if batch.length:
            entry = self._there(path)
            tail = entry.row.stream.tail
            entry.grown += len(batch.data)
            self._batches.append((entry.row.id, tail, tail - batch.length, batch.data))

    def _forget(self, key: int) -> None:
        self._forgotten.append(key)
        self._stamped = {stamped for stamped in self._stamped if stamped[0] != key}

    def _erase(self, path: str) -> None:
        gone = self._there(path)
        self._entries[path] = None
        self._batches = [batch for batch in self._batches if batch[0] != gone.row.id]
        if gone.before is not None:
            self._erased.append(gone.row.id)

    def commit(self) -> None:
        """Write what changed, tell the other processes, and commit, in one round trip."""
        with pipelined(self.connection):
            self.write()
            if self.moved:
                self.connection.execute(_NOTIFY, (self._payload(),))
            self.connection.execute("COMMIT")

    def write(self) -> None:
        """Have the tables say what is known by now."""
        if self._forgotten:
            self.connection.execute(_FORGET, (_numbers(self._forgotten),))
        if self._erased:
            for statement in _ERASE:
                self.connection.execute(statement, (_numbers(self._erased),))
        advanced = self._write_streams()
        if advanced or self._batches:
            self.connection.execute(_APPEND, [*_columns(advanced, 5), *_columns(self._batches, 4)])
        if self._stamped:
            states = ((key, name, self._producers[key, name]) for key, name in self._stamped)
            rows = [(key, name, state.epoch, state.seq) for key, name, state in states]
            self.connection.execute(_REMEMBER, _columns(rows, 4))
        for written in (self._forgotten, self._erased, self._batches, self._stamped):
            written.clear()

    def _write_streams(self) -> list[tuple[int, int, float, float | None, int]]:
        """Write what is not merely longer than it was; what is, with how and by how many bytes."""
        advanced: list[tuple[int, int, float, float | None, int]] = []
        for path, entry in sorted(self._entries.items()):  # or two that create the same wait crosswise
            if entry is None or entry.row.stream is entry.before:
                continue
            key, stream, before = entry.row.id, entry.row.stream, entry.before
            if before is None:
                self.connection.execute(_INSERT, (Int8(key), path, *_origin(stream), *_progress(entry)))
            elif _standing(before) == _standing(stream):
                advanced.append((key, stream.tail, stream.touched, stream.ends, entry.grown))
            else:
                self.connection.execute(_UPDATE, (*_progress(entry), Int8(key)))
            entry.before, entry.grown = stream, 0
        return advanced

    def _payload(self) -> str:
        """Who moved where; nothing when that is too much, which says: look for yourselves."""
        payload = orjson.dumps(list(self.moved.items()))
        return payload.decode() if len(payload) <= _PAYLOAD_BYTES else ""


def _standing(stream: Stream) -> tuple[Any, ...]:
    """What most appends leave as it was."""
    return stream.closed, stream.last_seq, stream.forks, stream.deleted


def _origin(stream: Stream) -> tuple[Any, ...]:
    fork = stream.fork
    return (
        stream.tag,
        stream.content_type,
        stream.expiry.ttl,
        stream.expiry.expires_at,
        fork and fork.source,
        fork and fork.position,
        fork and fork.sub_offset,
    )


def _progress(entry: _Entry) -> tuple[Any, ...]:
    stream, closer = entry.row.stream, entry.row.stream.closed_by
    return (
        Int8(stream.tail),
        stream.touched,
        stream.ends,
        Int8(entry.grown),
        stream.closed,
        closer and closer.producer_id,
        closer and closer.epoch,
        closer and closer.seq,
        stream.last_seq,
        Int8(stream.forks),
        stream.deleted,
    )


def _columns(rows: Collection[tuple[Any, ...]], width: int) -> list[Any]:
    """Rows as one array a column."""
    if not rows:
        return [[] for _ in range(width)]
    return [
        _numbers(column) if isinstance(column[0], int | float | None) else list(column)
        for column in zip(*rows, strict=True)
    ]


def _numbers(column: Iterable[float | None]) -> str:
    # As the array's text: a list of numbers would get the narrowest type that holds them, and so one
    # statement several plans.
    return f"{{{','.join('NULL' if number is None else repr(number) for number in column)}}}"
