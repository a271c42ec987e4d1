"""The SQLite store's tables, and every statement that touches them."""

import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from durable_chat.streams.protocol.errors import InvalidOffset, Unavailable
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.headers import is_json
from durable_chat.streams.protocol.producers import ProducerStamp, ProducerState
from durable_chat.streams.stores.base import Batch, Page, Stream

Synchronous: TypeAlias = Literal["FULL", "NORMAL"]

_VERSION: Final = 1
_WAL_ATTEMPTS: Final = 50
_WAL_BYTES: Final = 64 * 1024 * 1024

# One row an append: a batch is written and read whole. Clustered by (stream, finish), so that an append is an
# insert at the end of its stream and a read is one range, however long the stream and however many there are.
_SCHEMA: Final = """
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
    if _version(connection) == 0:
        connection.execute("BEGIN IMMEDIATE")
        if _version(connection) == 0:  # or another process has been quicker
            for statement in _SCHEMA.strip().split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={_VERSION}")
        connection.execute("COMMIT")
    if _version(connection) > _VERSION:
        raise Unavailable("The streams database was written by a newer version.")


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def find(connection: sqlite3.Connection, path: str) -> Row | None:
    """The stream at a path, expired or not."""
    found = connection.execute(
        "SELECT id, tag, content_type, ttl, expires_at, tail, closed, closer, closer_epoch, closer_seq,"
        " last_seq, touched FROM stream WHERE path = ?",
        (path,),
    ).fetchone()
    if found is None:
        return None
    key, tag, content_type, ttl, expires_at, tail, closed, closer, epoch, seq, last_seq, touched = found
    closed_by = None if closer is None else ProducerStamp(closer, epoch, seq)
    expiry = Expiry(ttl, expires_at)
    return Row(key, Stream(tag, content_type, expiry, tail, bool(closed), closed_by, last_seq, touched))


def insert(connection: sqlite3.Connection, path: str, stream: Stream, batch: Batch) -> None:
    """A new stream with its first batch."""
    key = connection.execute(
        "INSERT INTO stream (path, tag, content_type, ttl, expires_at, tail, closed, touched)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            path,
            stream.tag,
            stream.content_type,
            stream.expiry.ttl,
            stream.expiry.expires_at,
            stream.tail,
            stream.closed,
            stream.touched,
        ),
    ).lastrowid
    assert key is not None
    _insert_batch(connection, key, stream.tail, batch)


def update(connection: sqlite3.Connection, row: Row, batch: Batch) -> None:
    """What an append makes of a stream, and its batch. ``row`` has the state after it."""
    stream, closer = row.stream, row.stream.closed_by
    connection.execute(
        "UPDATE stream SET tail = ?, closed = ?, closer = ?, closer_epoch = ?, closer_seq = ?, last_seq = ?,"
        " touched = ? WHERE id = ?",
        (
            stream.tail,
            stream.closed,
            closer and closer.producer_id,
            closer and closer.epoch,
            closer and closer.seq,
            stream.last_seq,
            stream.touched,
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


def touch(connection: sqlite3.Connection, path: str, tag: str, now: float) -> None:
    """Note that a stream has been read, if it is still the one that was."""
    connection.execute(
        "UPDATE stream SET touched = max(touched, ?) WHERE path = ? AND tag = ?", (now, path, tag)
    )


def erase(connection: sqlite3.Connection, row: Row) -> None:
    """Everything that is kept of a stream."""
    connection.execute("DELETE FROM batch WHERE stream = ?", (row.id,))
    connection.execute("DELETE FROM producer WHERE stream = ?", (row.id,))
    connection.execute("DELETE FROM stream WHERE id = ?", (row.id,))


def page(connection: sqlite3.Connection, row: Row, start: int, *, limit: int) -> Page:
    """The batches that follow a position, until they make ``limit`` bytes.

    Raises ``InvalidOffset`` for a position at which no batch ends.
    """
    batches: list[bytes] = []
    size, end = 0, start
    for finish, begin, data in connection.execute(
        "SELECT finish, start, data FROM batch WHERE stream = ? AND finish > ? ORDER BY finish",
        (row.id, start),
    ):
        if begin != end:
            raise InvalidOffset
        batches.append(data)
        size, end = size + len(data), finish
        if size >= limit:
            break
    if not batches and start != row.stream.tail:
        raise InvalidOffset
    joint = b"," if is_json(row.stream.content_type) else b""
    return Page(row.stream, start, end, joint.join(batches))
