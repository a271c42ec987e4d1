"""A store in a SQLite file of its own: durable before it is acknowledged."""

import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from durable_chat.streams.protocol.errors import StreamNotFound
from durable_chat.streams.stores import rules, tables
from durable_chat.streams.stores.base import Page, Stream
from durable_chat.streams.stores.catalogue import Listed
from durable_chat.streams.stores.drain import Drain, Row, Write
from durable_chat.streams.stores.file import File, Synchronous
from durable_chat.streams.stores.recent import RECENT_BYTES, Glance, Windows
from durable_chat.streams.stores.sqlite_drain import SQLiteDrain
from durable_chat.streams.stores.threaded import ThreadedStore
from durable_chat.streams.stores.threads import Reader, Writer

_READERS: Final = 2


class SQLiteStore(ThreadedStore[sqlite3.Connection]):
    """Keeps streams in the file at ``path``; other processes may use it too. A ``CataloguedStore``.

    ``synchronous`` is SQLite's: with FULL what was acknowledged survives a power cut, with NORMAL only the
    death of the process. The file is opened, and made if need be, by the first call that needs it; one that
    stays locked by another process for ``busy_seconds`` is ``Unavailable``. What was appended or read of
    late is kept in memory, up to ``recent_bytes``, and read from there without a thread; which is as good as
    from the file, since all that can change of a stream is looked up there first.
    """

    def __init__(
        self,
        path: Path,
        *,
        synchronous: Synchronous = "FULL",
        busy_seconds: float = 5.0,
        recent_bytes: int = RECENT_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        file = File(path, synchronous, busy_seconds)
        super().__init__(readers=_READERS, clock=clock)
        self._windows = Windows(recent_bytes)
        self._glance = Glance(file)
        self._writer = Writer(
            file,
            self._writes,
            self._waiters,
            windows=self._windows,
            glance=self._glance,
            sweep=self._sweep,
        )
        readers = (Reader("reader", file, self._reads, glance=self._glance) for _ in range(_READERS))
        self._hire([self._writer, *readers])

    async def scan(self, *, prefix: str = "", after: str = "", limit: int) -> list[Listed]:
        self._crew.start()
        return await self._reads.ask(
            partial(tables.scan, prefix=prefix, after=after, limit=limit, now=self._clock())
        )

    def _attend(self) -> None:
        if not self._writer.watches:
            self._writes.nudge()

    def _let_go(self) -> None:
        self._glance.close()
        self._windows.clear()

    def _head(self, path: str, connection: sqlite3.Connection) -> Stream:
        return self._find(path, connection).stream

    def _read(self, path: str, position: int | None, connection: sqlite3.Connection, *, limit: int) -> Page:
        row = self._find(path, connection)
        page = tables.page(connection, row, row.stream.tail if position is None else position, limit=limit)
        self._windows.note([(path, page)])
        self._glance.open()
        return page

    def _recall(self, path: str, position: int | None, *, limit: int) -> Page | None:
        stream = self._at_hand(path)
        if stream is None:
            return None
        return self._windows.page(path, stream, stream.tail if position is None else position, limit=limit)

    def _at_hand(self, path: str) -> Stream | None:
        stream = self._glance.find(path) if path in self._windows else None
        if stream is None or stream.deleted or rules.is_over(stream, now=self._clock()):
            return None
        return stream

    def _find(self, path: str, connection: sqlite3.Connection) -> Row:
        row = tables.find(connection, path)
        if row is None:
            self._windows.note([(path, None)])  # another process has deleted it
            raise StreamNotFound
        now = self._clock()
        if rules.is_over(row.stream, now=now):
            self._writes.tell(Write(partial(self._look, path), (path,), deletes=True))
        rules.check_there(row.stream, now=now)
        return row

    def _ended(self, drain: Drain, *, now: float, limit: int) -> list[str]:
        assert isinstance(drain, SQLiteDrain)
        return tables.ended(drain.connection, now=now, limit=limit)
