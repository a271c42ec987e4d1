"""The SQLite store's file: what its tables are, and how a connection to it begins."""

import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from durable_chat.streams.protocol.errors import Unavailable
from durable_chat.streams.protocol.expiry import Expiry

Synchronous: TypeAlias = Literal["FULL", "NORMAL"]

_WAL_ATTEMPTS: Final = 50
_WAL_BYTES: Final = 64 * 1024 * 1024

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

# One row an append: a batch is written and read whole. Its stream and its end are one number, its place
# (``tables.place``), so that an append is an insert at the end of its stream and a read is one range, however
# long the stream and however many there are. WITHOUT ROWID, as it was, suits short rows only: any above a
# quarter of a page gets pages of its own, and a full page is shared out among its neighbours again and again.
# ``whole`` is how long a batch is that was compressed.
_BATCHES: Final = """
ALTER TABLE batch RENAME TO old_batch;
CREATE TABLE batch (
    place INTEGER PRIMARY KEY,
    start INTEGER NOT NULL,
    data BLOB NOT NULL,
    whole INTEGER
) STRICT;
INSERT INTO batch (place, start, data) SELECT stream << 35 | finish, start, data FROM old_batch;
DROP TABLE old_batch;
"""

# The file's version is how many of them it has seen: what has been released is not changed, only added to.
_MIGRATIONS: Final = (_STREAMS, _CATALOGUE, _FORKS, _BATCHES)


@dataclass(frozen=True, slots=True)
class File:
    """The database's file, how sure a commit is to be on the disk, how long to wait for another's lock."""

    path: Path
    synchronous: Synchronous
    busy_seconds: float

    def connect(self) -> sqlite3.Connection:
        """A connection to the file, which is made if it is not there.

        It begins and commits only where it is told to. Raises ``sqlite3.Error``, and ``Unavailable`` for a
        file that a newer version has written.
        """
        connection = sqlite3.connect(
            self.path, timeout=self.busy_seconds, isolation_level=None, check_same_thread=False
        )
        try:
            _use_write_ahead_log(connection)
            for pragma in (
                f"synchronous={self.synchronous}",
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
