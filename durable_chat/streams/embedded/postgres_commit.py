"""What a drain has decided, in the tables: committed, and told to the other processes."""

from typing import Any, Final, TypeAlias

import orjson
from psycopg.types.numeric import Int8

from durable_chat.streams.embedded.postgres_connection import pipelined
from durable_chat.streams.embedded.postgres_drain import PostgresDrain
from durable_chat.streams.embedded.postgres_tables import columns, numbers
from durable_chat.streams.stores.base import Stream
from durable_chat.streams.stores.drain import Entry

_Advance: TypeAlias = tuple[int, int, float, float | None, int]
"""A stream's key, tail, last use, end, and by how many bytes it grew."""

CHANNEL: Final = "'durable_streams_' || 'durable_streams_stream'::regclass::oid"  # one a schema
_PAYLOAD_BYTES: Final = 7_900  # PostgreSQL takes fewer than 8 000

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
_ADVANCE: Final = """
    UPDATE durable_streams_stream AS s
    SET tail = n.tail, touched = n.touched, ends = n.ends, size = s.size + n.size
    FROM unnest(%s::bigint[], %s::bigint[], %s::float8[], %s::float8[], %s::bigint[])
         AS n (id, tail, touched, ends, size)
    WHERE s.id = n.id
"""
_ADD: Final = """
    INSERT INTO durable_streams_batch (stream_id, finish, start, data)
    SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %b::bytea[]) AS n
"""
_REMEMBER: Final = """
    INSERT INTO durable_streams_producer (stream_id, producer_id, epoch, seq)
    SELECT * FROM unnest(%s::bigint[], %s::text[], %s::bigint[], %s::bigint[]) AS n {only}
    ON CONFLICT (stream_id, producer_id) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq
"""
# As few statements as possible: each takes as long as several appends.
_APPEND: Final = f"WITH advanced AS ({_ADVANCE}) {_ADD}"
_UPDATE: Final = """
UPDATE durable_streams_stream
SET tail = %s, touched = %s, ends = %s, size = size + %s, closed = %s, closer = %s, closer_epoch = %s,
    closer_seq = %s, last_seq = %s, forks = %s, deleted = %s
WHERE id = %s
"""
_VERSION: Final = "pg_current_xact_id_if_assigned()::xid::text::bigint"
_LEAVE: Final = f"SELECT {_VERSION}"
_NOTIFY: Final = f"pg_notify({CHANNEL}, %s)"
# All of it, if the rows are as they were; their tails too, since what a standby lost when it took over counts
# its transactions anew. In the order of ``tables.lock``; a row that has been written
# meanwhile is looked at again, as it is then, once its lock is free.
_AT_ONCE: Final = f"""
WITH known AS (
    SELECT FROM durable_streams_stream s
    JOIN unnest(%s::bigint[], %s::xid[], %s::bigint[]) AS k (id, version, tail)
         ON s.id = k.id AND s.xmin = k.version AND s.tail = k.tail
    ORDER BY s.id FOR UPDATE OF s
), same AS (
    SELECT WHERE (SELECT count(*) FROM known) = %s
),
advanced AS ({_ADVANCE} AND EXISTS (SELECT FROM same)),
added AS ({_ADD} WHERE EXISTS (SELECT FROM same)),
remembered AS ({_REMEMBER.format(only="WHERE EXISTS (SELECT FROM same)")})
SELECT {_VERSION}, {_NOTIFY} FROM same
"""  # noqa: S608 - constants


def commit(drain: PostgresDrain) -> int:
    """Write what was decided on rows that were looked up, tell the other processes, and commit: in one round
    trip. The version of the rows that were written."""
    execute = drain.connection.execute
    with pipelined(drain.connection):
        _erase(drain)
        advanced = _write_streams(drain)
        if advanced or drain.batches:
            execute(_APPEND, [*columns(advanced, 5), *columns(drain.batches, 4)])
        if stamped := _stamped(drain):
            execute(_REMEMBER.format(only=""), columns(stamped, 4))
        if drain.moved:
            execute(f"SELECT {_NOTIFY}", (_payload(drain),))
        left = execute(_LEAVE, binary=True)
        execute("COMMIT")
    ((version,),) = left
    return version or 0  # nothing was written


def at_once(drain: PostgresDrain) -> int | None:
    """The same on rows that were recalled, in one round trip with asking whether that is what they are.

    ``None`` if not, or if there is more to do than to append; then nothing is written.
    """
    known = [
        (entry.row.id, entry.version, entry.before.tail)
        for entry in drain.entries.values()
        if entry is not None and entry.before is not None and _merely_advanced(entry)
    ]
    if not drain.moved or drain.forgotten or len(known) != len(drain.entries):
        return None
    advanced = [_advance(entry) for entry in drain.changed.values()]
    arrays = [*columns(advanced, 5), *columns(drain.batches, 4), *columns(_stamped(drain), 4)]
    given = [*columns(known, 3), len(known), *arrays, _payload(drain)]
    found = drain.database.at_once(drain.connection, _AT_ONCE, given)
    return None if found is None else found[0]


def _erase(drain: PostgresDrain) -> None:
    if drain.forgotten:
        drain.connection.execute(_FORGET, (numbers(drain.forgotten),))
    if drain.erased:
        for statement in _ERASE:
            drain.connection.execute(statement, (numbers(drain.erased),))


def _write_streams(drain: PostgresDrain) -> list[_Advance]:
    """Write what is not merely longer than it was; what is."""
    execute = drain.connection.execute
    advanced: list[_Advance] = []
    for path, entry in sorted(drain.changed.items()):  # or two that create the same wait crosswise
        key, stream = entry.row
        if entry.before is None:
            execute(_INSERT, (Int8(key), path, *_origin(stream), *_progress(entry)))
        elif _merely_advanced(entry):
            advanced.append(_advance(entry))
        else:
            execute(_UPDATE, (*_progress(entry), Int8(key)))
    return advanced


def _merely_advanced(entry: Entry) -> bool:
    """Whether a stream is, at most, longer than it was."""
    return entry.before is not None and _standing(entry.before) == _standing(entry.row.stream)


def _standing(stream: Stream) -> tuple[Any, ...]:
    return stream.closed, stream.last_seq, stream.forks, stream.deleted


def _advance(entry: Entry) -> _Advance:
    stream = entry.row.stream
    return entry.row.id, stream.tail, stream.touched, stream.ends, entry.grown


def _stamped(drain: PostgresDrain) -> list[tuple[int, str, int, int]]:
    return [
        (entry.row.id, name, state.epoch, state.seq)
        for entry in drain.changed.values()
        for name in entry.stamped
        if (state := entry.producers[name]) is not None
    ]


def _payload(drain: PostgresDrain) -> str:
    """Who moved where; nothing when that is too much, which says: look for yourselves."""
    payload = orjson.dumps(list(drain.moved.items()))
    return payload.decode() if len(payload) <= _PAYLOAD_BYTES else ""


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


def _progress(entry: Entry) -> tuple[Any, ...]:
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
