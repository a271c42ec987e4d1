"""The SQLite store's rows, and every statement that touches them."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import chain
from typing import Final, NamedTuple

from durable_chat.streams.protocol import forks
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.protocol.producers import ProducerStamp, ProducerState
from durable_chat.streams.stores import rules
from durable_chat.streams.stores.base import Batch, Page, Stream
from durable_chat.streams.stores.catalogue import Listed

_BATCHES: Final = (
    "SELECT start, finish, data FROM batch WHERE stream = ? AND finish > ? AND finish <= ? ORDER BY finish"
)
_BEHIND_ALL: Final = "\U0010ffff"  # no path holds it: it is not printable


class Row(NamedTuple):
    """A stream and the key of its row."""

    id: int
    stream: Stream


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
    # A cursor that is left half-read, be it by a refusal's traceback, holds the connection to what was
    # committed then: it would not see what comes, nor could it write.
    with ExitStack() as cursors:
        following = chain.from_iterable(
            cursors.enter_context(closing(connection.execute(_BATCHES, piece)))
            for piece in forks.pieces(_lineage(connection, row), start, tail=row.stream.tail)
        )
        return rules.page(row.stream, start, following, limit=limit)


def _lineage(connection: sqlite3.Connection, row: Row) -> Iterator[tuple[int, int]]:
    kept: Row | None = row
    while kept is not None:
        yield kept.id, kept.stream.start
        kept = source_of(connection, kept.stream)
