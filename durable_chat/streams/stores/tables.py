"""The SQLite store's rows, and every statement that touches them."""

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, closing
from itertools import chain
from typing import Any, Final

from lz4 import block

from durable_chat.streams.protocol import forks
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.protocol.producers import ProducerStamp, ProducerState
from durable_chat.streams.stores import rules
from durable_chat.streams.stores.base import Page, Stream
from durable_chat.streams.stores.catalogue import Listed
from durable_chat.streams.stores.drain import Entry, Row

LONGEST: Final = 2**35 - 1
"""The last position that a stream can have: messages of a JSON stream, bytes of any other."""

_MOST: Final = 2**28 - 1  # keys: no stream gets another's, even after it

_BATCHES: Final = "SELECT start, place, data, whole FROM batch WHERE place > ? AND place <= ? ORDER BY place"

# Longer ones are compressed: chunks are mostly the same keys and ids again, and each page that an append
# writes makes it dearer, its fsync above all.
_LONG: Final = 1_000

_BEHIND_ALL: Final = "\U0010ffff"  # no path holds it: it is not printable


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


def insert(connection: sqlite3.Connection, path: str, stream: Stream, *, size: int) -> int:
    """A new stream of so many bytes; its key."""
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
            size,
            fork and fork.source,
            fork and fork.position,
            fork and fork.sub_offset,
        ),
    ).lastrowid
    assert key is not None
    if key > _MOST:
        raise sqlite3.DataError("The file has had as many streams as it has keys for.")
    return key


def update(connection: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    """What has become of streams."""
    connection.executemany(
        "UPDATE stream SET tail = ?, closed = ?, closer = ?, closer_epoch = ?, closer_seq = ?, last_seq = ?,"
        " touched = ?, ends = ?, size = size + ?, forks = ?, deleted = ? WHERE id = ?",
        [_progress(entry) for entry in entries],
    )


def _progress(entry: Entry) -> tuple[Any, ...]:
    key, stream = entry.row
    closer = stream.closed_by
    return (
        stream.tail,
        stream.closed,
        closer and closer.producer_id,
        closer and closer.epoch,
        closer and closer.seq,
        stream.last_seq,
        stream.touched,
        stream.ends,
        entry.grown,
        stream.forks,
        stream.deleted,
        key,
    )


def place(key: int, position: int) -> int:
    """Where the batch is that ends there: its stream's key and its end in one number."""
    return key << LONGEST.bit_length() | position


def add(connection: sqlite3.Connection, batches: Iterable[tuple[int, int, int, bytes]]) -> None:
    """Batches: the stream's key, the end, the start, the bytes of each."""
    connection.executemany(
        "INSERT INTO batch (place, start, data, whole) VALUES (?, ?, ?, ?)",
        [(place(key, end), start, *_packed(data)) for key, end, start, data in batches],
    )


def _packed(data: bytes) -> tuple[bytes, int | None]:
    """What is stored of a batch, and how long it is if it was compressed."""
    if len(data) > _LONG:
        packed: bytes = block.compress(data, store_size=False)
        if len(packed) < len(data):
            return packed, len(data)
    return data, None


def _unpacked(data: bytes, whole: int | None) -> bytes:
    return data if whole is None else block.decompress(data, uncompressed_size=whole)


def producer_of(connection: sqlite3.Connection, row: Row, producer_id: str) -> ProducerState | None:
    """What the stream remembers of a producer."""
    found = connection.execute(
        "SELECT epoch, seq FROM producer WHERE stream = ? AND id = ?", (row.id, producer_id)
    ).fetchone()
    return None if found is None else ProducerState(*found)


def remember(connection: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    """Each stamped producer's last batch."""
    connection.executemany(
        "INSERT INTO producer (stream, id, epoch, seq) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (stream, id) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq",
        [
            (entry.row.id, name, state.epoch, state.seq)
            for entry in entries
            for name in entry.stamped
            if (state := entry.producers[name]) is not None
        ],
    )


def forget(connection: sqlite3.Connection, keys: Iterable[int]) -> None:
    """The producers of streams that have no writers any more."""
    connection.executemany("DELETE FROM producer WHERE stream = ?", [(key,) for key in keys])


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


def erase(connection: sqlite3.Connection, keys: Collection[int]) -> None:
    """Everything that is kept of streams that have been forgotten."""
    connection.executemany(
        "DELETE FROM batch WHERE place BETWEEN ? AND ?",
        [(place(key, 0), place(key, LONGEST)) for key in keys],
    )
    connection.executemany("DELETE FROM stream WHERE id = ?", [(key,) for key in keys])


def page(connection: sqlite3.Connection, row: Row, start: int, *, limit: int) -> Page:
    """The batches that follow a position, until they make ``limit`` bytes.

    Raises ``InvalidOffset`` for a position at which no batch ends.
    """
    # A cursor that is left half-read, be it by a refusal's traceback, holds the connection to what was
    # committed then: it would not see what comes, nor could it write.
    with ExitStack() as cursors:
        stored = chain.from_iterable(
            cursors.enter_context(
                closing(connection.execute(_BATCHES, (place(key, after), place(key, until))))
            )
            for key, after, until in forks.pieces(_lineage(connection, row), start, tail=row.stream.tail)
        )
        following = ((begin, end & LONGEST, _unpacked(data, whole)) for begin, end, data, whole in stored)
        return rules.page(row.stream, start, following, limit=limit)


def _lineage(connection: sqlite3.Connection, row: Row) -> Iterator[tuple[int, int]]:
    kept: Row | None = row
    while kept is not None:
        yield kept.id, kept.stream.start
        fork = kept.stream.fork  # whose source is kept as long as it is
        kept = None if fork is None else find(connection, fork.source)
