"""The SQLite store's tables, and every statement that touches them."""

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final, Literal, TypeAlias

from durable_chat.streams.protocol import forks
from durable_chat.streams.protocol.errors import Unavailable
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.protocol.producers import ProducerStamp, ProducerState
from durable_chat.streams.stores import rules
from durable_chat.streams.stores.base import Batch, Page, Stream
from durable_chat.streams.stores.catalogue import Listed

Synchronous: TypeAlias = Literal["FULL", "NORMAL"]

_WAL_ATTEMPTS: Final = 50
_WAL_BYTES: Final = 64 * 1024 * 1024
_BEHIND_ALL: Final = "\U0010ffff"  # no path holds it: it is not printable

# One row an append: a batch is written and read whole. Clustered by (stream, finish), so that an append is an
# insert at the end of its stream and a read is one range, however long the stream and however many there are.
_STREAMS: Final = """
CREATE TABLE stream (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path TEXT NOT NULL UNIQUE,
    tag TEXT NOT NULL,
    content_type TEXT NOT NULL,
    ttl INTEGER,
    expires_at TEXT,
    tail INTEGER NOT NULL,
    closed INTEGER NOT NULL,
    closer TEXT,
    closer_epoch INTEGER,
    closer_seq INTEGER,
    last_seq TEXT,
    touched REAL NOT NULL
) STRICT;
CREATE TABLE batch (
    stream INTEGER NOT NULL,
    finish INTEGER NOT NULL,
    start INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (stream, finish)
) STRICT, WITHOUT ROWID;
CREATE TABLE producer (
    stream INTEGER NOT NULL,
    id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (stream, id)
) STRICT, WITHOUT ROWID;
"""

# How much is kept of a stream, and when it expires: for the catalogue, at a cost that does not grow.
_CATALOGUE: Final = """
ALTER TABLE stream ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
ALTER TABLE stream ADD COLUMN ends REAL;
UPDATE stream SET
    size = (SELECT coalesce(sum(length(data)), 0) FROM batch WHERE batch.stream = stream.id),
    ends = expiry_ends(ttl, expires_at, touched);
CREATE INDEX stream_ends ON stream (ends) WHERE ends IS NOT NULL;
"""

# Where a stream was forked from, and how many were forked from it. A path is enough of a reference: as long
# as it has forks, no other stream can be there.
_FORKS: Final = """
ALTER TABLE stream ADD COLUMN source TEXT;
ALTER TABLE stream ADD COLUMN source_position INTEGER;
ALTER TABLE stream ADD COLUMN source_sub_offset INTEGER;
ALTER TABLE stream ADD COLUMN forks INTEGER NOT NULL DEFAULT 0;
ALTER TABLE stream ADD COLUMN deleted INTEGER NOT NULL DEFAULT 0;
"""

# The file's version is how many of them it has seen: what has been released is not changed, only added to.
_MIGRATIONS: Final = (_STREAMS, _CATALOGUE, _FORKS)


@dataclass(frozen=True, slots=True)
class Row:
    """A stream and the key of its row."""

    id: int
    stream: Stream


def connect(path: Path, *, synchronous: Synchronous, busy_seconds: float) -> sqlite3.Connection:
    """A connection to the store's file, which is made if it is not there.

    It begins and commits only where it is told to. Raises ``sqlite3.Error``, and ``Unavailable`` for a file
    that a newer version has written.
    """
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    try:
        _use_write_ahead_log(connection)
        for pragma in (
            f"synchronous={synchronous}",
            f"journal_size_limit={_WAL_BYTES}",
            "secure_delete=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")
        _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # For a new file, SQLite refuses this at once while another connection is about the same, instead of
    # waiting as it does for a transaction. So wait for one, and ask again.
    for _ in range(_WAL_ATTEMPTS):
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode=WAL")
            return
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    raise Unavailable("The streams database is being set up.")


def _migrate(connection: sqlite3.Connection) -> None:
    if _version(connection) < len(_MIGRATIONS):
        connection.create_function("expiry_ends", 3, _expiry_ends)
        connection.execute("BEGIN IMMEDIATE")
        for migration in _MIGRATIONS[_version(connection) :]:  # none, if another process has been quicker
            for statement in migration.strip().split(";\n"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={len(_MIGRATIONS)}")
        connection.execute("COMMIT")
    if _version(connection) > len(_MIGRATIONS):
        raise Unavailable("The streams database was written by a newer version.")


def _expiry_ends(ttl: int | None, expires_at: str | None, touched: float) -> float | None:
    return Expiry(ttl, expires_at).ends(touched=touched)


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def find(connection: sqlite3.Connection, path: str) -> Row | None:
    """What is kept at a path, expired, deleted or neither."""
    found = connection.execute(
        "SELECT id, tag, content_type, ttl, expires_at, tail, closed, closer, closer_epoch, closer_seq,"
        " last_seq, touched, source, source_position, source_sub_offset, forks, deleted"
        " FROM stream WHERE path = ?",
        (path,),
    ).fetchone()
    if found is None:
        return None
    key, tag, content_type, ttl, expires_at, tail, closed, closer, epoch, seq, last_seq, touched, *forked = (
        found
    )
    source, position, sub_offset, forks, deleted = forked
    stream = Stream(
        tag,
        content_type,
        Expiry(ttl, expires_at),
        tail,
        bool(closed),
        None if closer is None else ProducerStamp(closer, epoch, seq),
        last_seq,
        touched,
        None if source is None else Fork(source, position, sub_offset),
        forks,
        bool(deleted),
    )
    return Row(key, stream)


def source_of(connection: sqlite3.Connection, stream: Stream) -> Row | None:
    """What a stream was forked from, if it was; that is kept as long as the stream is."""
    return None if stream.fork is None else find(connection, stream.fork.source)


def insert(connection: sqlite3.Connection, path: str, stream: Stream, batch: Batch) -> None:
    """A new stream with its first batch."""
    fork = stream.fork
    key = connection.execute(
        "INSERT INTO stream (path, tag, content_type, ttl, expires_at, tail, closed, touched, ends, size,"
        " source, source_position, source_sub_offset) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            path,
            stream.tag,
            stream.content_type,
            stream.expiry.ttl,
            stream.expiry.expires_at,
            stream.tail,
            stream.closed,
            stream.touched,
            stream.ends,
            len(batch.data),
            fork and fork.source,
            fork and fork.position,
            fork and fork.sub_offset,
        ),
    ).lastrowid
    assert key is not None
    _insert_batch(connection, key, stream.tail, batch)


def update(connection: sqlite3.Connection, row: Row, batch: Batch) -> None:
    """What an append makes of a stream, and its batch. ``row`` has the state after it."""
    stream, closer = row.stream, row.stream.closed_by
    connection.execute(
        "UPDATE stream SET tail = ?, closed = ?, closer = ?, closer_epoch = ?, closer_seq = ?, last_seq = ?,"
        " touched = ?, ends = ?, size = size + ? WHERE id = ?",
        (
            stream.tail,
            stream.closed,
            closer and closer.producer_id,
            closer and closer.epoch,
            closer and closer.seq,
            stream.last_seq,
            stream.touched,
            stream.ends,
            len(batch.data),
            row.id,
        ),
    )
    _insert_batch(connection, row.id, stream.tail, batch)


def _insert_batch(connection: sqlite3.Connection, key: int, tail: int, batch: Batch) -> None:
    if batch.length:
        connection.execute(
            "INSERT INTO batch (stream, finish, start, data) VALUES (?, ?, ?, ?)",
            (key, tail, tail - batch.length, batch.data),
        )


def update_forks(connection: sqlite3.Connection, row: Row) -> None:
    """How many forks a stream has, and whether they are all that it is kept for. Then it has no writers."""
    connection.execute(
        "UPDATE stream SET forks = ?, deleted = ?, ends = ? WHERE id = ?",
        (row.stream.forks, row.stream.deleted, row.stream.ends, row.id),
    )
    if row.stream.deleted:
        connection.execute("DELETE FROM producer WHERE stream = ?", (row.id,))


def producer_of(connection: sqlite3.Connection, row: Row, stamp: ProducerStamp) -> ProducerState | None:
    """What the stream remembers of the producer that signs itself so."""
    found = connection.execute(
        "SELECT epoch, seq FROM producer WHERE stream = ? AND id = ?", (row.id, stamp.producer_id)
    ).fetchone()
    return None if found is None else ProducerState(*found)


def remember(connection: sqlite3.Connection, row: Row, stamp: ProducerStamp) -> None:
    """Note a producer's batch as its last."""
    connection.execute(
        "INSERT INTO producer (stream, id, epoch, seq) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (stream, id) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq",
        (row.id, stamp.producer_id, stamp.epoch, stamp.seq),
    )


def touch(connection: sqlite3.Connection, path: str, stream: Stream) -> None:
    """Note when a stream has been read, if it is still the one that was."""
    connection.execute(
        "UPDATE stream SET touched = max(touched, ?), ends = max(ends, ?) WHERE path = ? AND tag = ?",
        (stream.touched, stream.ends, path, stream.tag),
    )


def scan(connection: sqlite3.Connection, *, prefix: str, after: str, limit: int, now: float) -> list[Listed]:
    """The streams that live at ``now``, whose paths begin with ``prefix`` and follow ``after``, in order."""
    found = connection.execute(
        "SELECT path, size FROM stream WHERE path > ? AND path >= ? AND path < ?"
        " AND NOT deleted AND (ends IS NULL OR ends > ?) ORDER BY path LIMIT ?",
        (after, prefix, prefix + _BEHIND_ALL, now, limit),
    ).fetchall()
    rows = [(path, find(connection, path), size) for path, size in found]
    return [Listed(path, row.stream, size) for path, row, size in rows if row is not None]


def ended(connection: sqlite3.Connection, *, now: float, limit: int) -> list[str]:
    """Paths of streams that have expired at ``now``, the oldest first."""
    return [
        path
        for (path,) in connection.execute(
            "SELECT path FROM stream WHERE ends <= ? ORDER BY ends LIMIT ?", (now, limit)
        )
    ]


def erase(connection: sqlite3.Connection, row: Row) -> None:
    """Everything that is kept of a stream."""
    connection.execute("DELETE FROM batch WHERE stream = ?", (row.id,))
    connection.execute("DELETE FROM producer WHERE stream = ?", (row.id,))
    connection.execute("DELETE FROM stream WHERE id = ?", (row.id,))


def page(connection: sqlite3.Connection, row: Row, start: int, *, limit: int) -> Page:
    """The batches that follow a position, until they make ``limit`` bytes.

    Raises ``InvalidOffset`` for a position at which no batch ends.
    """
    following = chain.from_iterable(
        connection.execute(
            "SELECT start, finish, data FROM batch WHERE stream = ? AND finish > ? AND finish <= ?"
            " ORDER BY finish",
            piece,
        )
        for piece in forks.pieces(_lineage(connection, row), start, tail=row.stream.tail)
    )
    return rules.page(row.stream, start, following, limit=limit)


def _lineage(connection: sqlite3.Connection, row: Row) -> Iterator[tuple[int, int]]:
    kept: Row | None = row
    while kept is not None:
        yield kept.id, kept.stream.start
        kept = source_of(connection, kept.stream)
