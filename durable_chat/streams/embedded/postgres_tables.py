"""The PostgreSQL store's rows, and the statements that read or lock them."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final, TypeAlias

import orjson
from psycopg.types.numeric import Int8

from durable_chat.streams.embedded.postgres_connection import Connection
from durable_chat.streams.protocol import forks
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.protocol.producers import ProducerStamp
from durable_chat.streams.stores import rules
from durable_chat.streams.stores.base import Page, Stream
from durable_chat.streams.stores.catalogue import Listed
from durable_chat.streams.stores.drain import Row

COLUMNS: Final = (
    "s.id, s.tag, s.content_type, s.ttl, s.expires_at, s.tail, s.closed, s.closer, s.closer_epoch,"
    " s.closer_seq, s.last_seq, s.touched, s.source, s.position, s.sub_offset, s.forks, s.deleted"
)
_WIDTH: Final = COLUMNS.count(",") + 1

# The window is bounded before it is summed, or a page would read the whole rest of a long stream.
_BATCHES: Final = """
SELECT array_agg(start ORDER BY finish), array_agg(finish ORDER BY finish), array_agg(data ORDER BY finish)
FROM (
    SELECT start, finish, data,
           sum(octet_length(data)) OVER (ORDER BY finish ROWS UNBOUNDED PRECEDING) - octet_length(data)
           AS before
    FROM (
        SELECT start, finish, data FROM durable_streams_batch
        WHERE stream_id = {stream} AND finish > {after} AND finish <= {until}
        ORDER BY finish LIMIT %s::bigint
    ) AS near
) AS sized
WHERE before < %s::bigint
"""
_FIND: Final = f"SELECT {COLUMNS} FROM durable_streams_stream s WHERE s.path = %s"  # noqa: S608 - constants
_BETWEEN: Final = _BATCHES.format(stream="%s::bigint", after="%s::bigint", until="%s::bigint")
# A stream and its own batches: one statement, and so one snapshot.
_READ: Final = f"""
SELECT {COLUMNS}, own.* FROM durable_streams_stream s CROSS JOIN LATERAL (
    {_BATCHES.format(stream="s.id", after="coalesce(%s::bigint, s.tail)", until="s.tail")}
) AS own (start, finish, data) WHERE s.path = %s
"""  # noqa: S608 - constants
_TAILS: Final = """
SELECT path, tail FROM durable_streams_stream WHERE path = ANY(%s) AND NOT closed AND NOT deleted
"""
_SCAN: Final = f"""
SELECT s.path, s.size, {COLUMNS} FROM durable_streams_stream s
WHERE s.path > %s AND s.path >= %s AND starts_with(s.path, %s) AND NOT s.deleted
      AND (s.ends IS NULL OR s.ends > %s)
ORDER BY s.path LIMIT %s
"""  # noqa: S608 - constants
_ENDED: Final = "SELECT path FROM durable_streams_stream WHERE ends <= %s ORDER BY ends LIMIT %s"

# ``xmin`` names the transaction that wrote the row as it is: whoever writes it next changes that.
_VERSIONED: Final = f"s.path, s.xmin::text::bigint, {COLUMNS}"
# By key, so that two processes which want the same streams never wait for each other crosswise.
_LOCK: Final = f"""
SELECT {_VERSIONED} FROM durable_streams_stream s WHERE s.path = ANY(%s) ORDER BY s.id FOR UPDATE
"""  # noqa: S608 - constants
# A delete may end in a source: what it will want is locked in the same order, before it holds anything.
_LOCK_LINEAGES: Final = f"""
WITH RECURSIVE lineage (path, source) AS (
    SELECT s.path, s.source FROM durable_streams_stream s WHERE s.path = ANY(%s)
    UNION
    SELECT s.path, s.source FROM durable_streams_stream s JOIN lineage ON s.path = lineage.source
)
SELECT {_VERSIONED} FROM durable_streams_stream s
WHERE s.path = ANY(ARRAY(SELECT path FROM lineage) || %s) ORDER BY s.id FOR UPDATE
"""  # noqa: S608 - constants
_PRODUCERS: Final = """
SELECT s.path, p.producer_id, p.epoch, p.seq
FROM unnest(%s::text[], %s::text[]) AS wanted (path, producer_id)
JOIN durable_streams_stream s ON s.path = wanted.path
JOIN durable_streams_producer p ON p.stream_id = s.id AND p.producer_id = wanted.producer_id
"""
_KEYS: Final = """
SELECT nextval(pg_get_serial_sequence('durable_streams_stream', 'id')) FROM generate_series(1, %s)
"""

Batches: TypeAlias = Iterable[tuple[int, int, bytes]]


def row(values: Iterable[Any]) -> Row:
    """What ``COLUMNS`` mean."""
    key, tag, content_type, ttl, expires_at, tail, closed, closer, epoch, seq, last_seq, *rest = values
    touched, source, position, sub_offset, count, deleted = rest
    return Row(
        key,
        Stream(
            tag=tag,
            content_type=content_type,
            expiry=Expiry(ttl, expires_at),
            tail=tail,
            closed=closed,
            closed_by=None if closer is None else ProducerStamp(closer, epoch, seq),
            last_seq=last_seq,
            touched=touched,
            fork=None if source is None else Fork(source, position, sub_offset),
            forks=count,
            deleted=deleted,
        ),
    )


def find(connection: Connection, path: str) -> Row | None:
    """What is kept at a path, expired and deleted or not."""
    found = connection.execute(_FIND, (path,), binary=True).fetchone()
    return None if found is None else row(found)


def read(
    connection: Connection, path: str, position: int | None, *, limit: int
) -> tuple[Row, Batches] | None:
    """What is kept at a path, and its own batches behind a position (``None``: the tail), to ``limit``."""
    after = None if position is None else Int8(position)
    found = connection.execute(_READ, (after, *_bounds(limit), path), binary=True).fetchone()
    return None if found is None else (row(found[:_WIDTH]), _batches(*found[_WIDTH:]))


def page(connection: Connection, here: Row, start: int, *, limit: int) -> Page:
    """What follows a position, in the stream or in those that it was forked from.

    Its statements want one snapshot. Raises ``InvalidOffset`` for a position at which no batch ends.
    """
    pieces = forks.pieces(_lineage(connection, here), start, tail=here.stream.tail)
    return rules.page(here.stream, start, _following(connection, pieces, limit=limit), limit=limit)


def _lineage(connection: Connection, here: Row | None) -> Iterator[tuple[int, int]]:
    while here is not None:
        yield here.id, here.stream.start
        here = None if here.stream.fork is None else find(connection, here.stream.fork.source)


def _following(connection: Connection, pieces: list[tuple[int, int, int]], *, limit: int) -> Batches:
    for key, after, until in pieces:
        given = (Int8(key), Int8(after), Int8(until), *_bounds(limit))
        found = connection.execute(_BETWEEN, given, binary=True).fetchone()
        end = after
        for batch in _batches(*found) if found else ():
            yield batch
            end = batch[1]
        if end != until:
            return  # the page is full before this piece is


def _batches(starts: list[int] | None, ends: list[int] | None, data: list[bytes] | None) -> Batches:
    return zip(starts or (), ends or (), data or (), strict=True)


def _bounds(limit: int) -> tuple[Int8, Int8]:
    """How many rows to look at for ``limit`` bytes, and that."""
    return Int8(min(8192, 16 + limit // 64)), Int8(limit)


def tails(connection: Connection, paths: Collection[str]) -> dict[str, int | None]:
    """The tail at each path; ``None``: closed or gone."""
    found: list[tuple[str, int]] = connection.execute(_TAILS, (list(paths),)).fetchall()
    return {**dict.fromkeys(paths), **dict(found)}


def scan(connection: Connection, *, prefix: str, after: str, limit: int, now: float) -> list[Listed]:
    """The streams that live at ``now``, whose paths begin with ``prefix`` and follow ``after``, in order."""
    found = connection.execute(_SCAN, (after, prefix, prefix, now, Int8(limit)), binary=True).fetchall()
    return [Listed(path, row(values).stream, size) for path, size, *values in found]


def ended(connection: Connection, *, now: float, limit: int) -> list[str]:
    """Paths of streams that have expired at ``now``, the oldest first."""
    return [path for (path,) in connection.execute(_ENDED, (now, Int8(limit)))]


def lock(
    connection: Connection, paths: Collection[str], deleted: Collection[str] = ()
) -> Iterable[tuple[Any, ...]]:
    """Hold what is kept at these paths until the transaction ends, and all that a delete may come to.

    Gives the path, the row's version and what ``row`` takes, for each that is there.
    """
    if not deleted:
        return connection.execute(_LOCK, (list(paths),), binary=True)
    return connection.execute(_LOCK_LINEAGES, (list(deleted), list(paths)), binary=True)


def producers(
    connection: Connection, stamped: Collection[tuple[str, str]]
) -> Iterable[tuple[str, str, int, int]]:
    """Path, id, epoch and sequence number of each producer (path, id) that is remembered.

    A statement of its own, behind the lock: it sees what the lock's last holder committed.
    """
    if not stamped:
        return ()
    return connection.execute(_PRODUCERS, columns(stamped, 2), binary=True)


def keys(connection: Connection, count: int) -> Iterable[tuple[int]]:
    """So many keys for new streams."""
    return connection.execute(_KEYS, (Int8(count),), binary=True) if count else ()


def columns(rows: Collection[tuple[Any, ...]], width: int) -> list[Any]:
    """Rows as one array a column."""
    if not rows:
        return [[] for _ in range(width)]
    return [
        numbers(column) if isinstance(column[0], int | float | None) else list(column)
        for column in zip(*rows, strict=True)
    ]


def numbers(column: Iterable[float | None]) -> str:
    """An array as its text: a list of numbers gets the narrowest type that holds them, and so one
    statement several plans."""
    return f"{{{orjson.dumps([*column])[1:-1].decode()}}}"
