"""A store in a SQLite file of its own: durable before it is acknowledged."""

import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from durable_chat.streams.protocol.errors import StreamNotFound
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.stores import rules, tables
from durable_chat.streams.stores.base import Append, Appended, Created, NewStream, Page, Stream
from durable_chat.streams.stores.catalogue import Listed
from durable_chat.streams.stores.file import File, Synchronous
from durable_chat.streams.stores.recent import RECENT_BYTES, Glance, Windows
from durable_chat.streams.stores.tables import Row
from durable_chat.streams.stores.threaded import ThreadedStore
from durable_chat.streams.stores.threads import SWEPT_AT_ONCE, Reader, Transaction, Writer

_READERS: Final = 2


class SQLiteStore(ThreadedStore[sqlite3.Connection, Transaction]):
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

    async def create(self, path: str, new: NewStream) -> Created:
        self._crew.start()
        return await self._writes.ask(partial(self._create, path, new))

    async def append(self, path: str, append: Append) -> Appended:
        self._crew.start()
        return await self._writes.ask(partial(self._append, path, append))

    async def delete(self, path: str) -> None:
        self._crew.start()
        await self._writes.ask(partial(self._delete, path))

    async def scan(self, *, prefix: str = "", after: str = "", limit: int) -> list[Listed]:
        self._crew.start()
        return await self._reads.ask(
            partial(tables.scan, prefix=prefix, after=after, limit=limit, now=self._clock())
        )

    async def sweep(self, *, limit: int) -> int:
        self._crew.start()
        return await self._writes.ask(partial(self._sweep, limit=limit))

    def _create(self, path: str, new: NewStream, transaction: Transaction) -> Created:
        row = self._look(path, transaction)
        source = None if new.fork is None else self._look(new.fork.source, transaction)
        if row is not None:
            rules.check_create(row.stream, new, source=None if source is None else source.stream)
            return Created(row.stream, new=False)
        if new.fork is not None:
            new = _fork(new, new.fork, source, transaction.connection)
        stream = rules.create(new, now=self._clock())
        tables.insert(transaction.connection, path, stream, new.batch)
        transaction.write(path, stream, new.batch)
        return Created(stream, new=True)

    def _append(self, path: str, append: Append, transaction: Transaction) -> Appended:
        row = self._there(path, transaction)
        connection, stamp = transaction.connection, append.producer
        producer = None if stamp is None else tables.producer_of(connection, row, stamp)
        if not rules.check_append(row.stream, append, producer):
            return Appended(row.stream, new=False, producer=producer)
        stream = rules.apply_append(row.stream, append, now=self._clock())
        tables.update(connection, Row(row.id, stream), append.batch)
        if stamp is not None:
            tables.remember(connection, row, stamp)
        transaction.write(path, stream, append.batch)
        transaction.move(path, stream)
        return Appended(stream, new=True, producer=rules.producer_after(append, producer))

    def _delete(self, path: str, transaction: Transaction) -> None:
        transaction.delete(path, self._there(path, transaction))

    def _there(self, path: str, transaction: Transaction) -> Row:
        row = self._look(path, transaction)
        if row is None:
            raise StreamNotFound
        rules.check_there(row.stream, now=self._clock())
        return row

    def _look(self, path: str, transaction: Transaction) -> Row | None:
        """What is kept at a path, deleted or not. What has expired is deleted first."""
        row = tables.find(transaction.connection, path)
        if row is None or not rules.is_over(row.stream, now=self._clock()):
            return row
        transaction.delete(path, row)
        return tables.find(transaction.connection, path)

    def _touch(self, path: str, stream: Stream) -> Callable[[Transaction], None]:
        return lambda transaction: tables.touch(transaction.connection, path, stream)

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
            self._writes.tell(partial(self._look, path))
        rules.check_there(row.stream, now=now)
        return row

    def _sweep(self, transaction: Transaction, *, limit: int = SWEPT_AT_ONCE) -> int:
        ended = tables.ended(transaction.connection, now=self._clock(), limit=limit)
        for path in ended:
            self._look(path, transaction)
        return len(ended)


def _fork(new: NewStream, fork: Fork, source: Row | None, connection: sqlite3.Connection) -> NewStream:
    """The request with what it takes from its source, which has one fork more."""
    if source is None:
        raise StreamNotFound("There is no stream to fork.")
    position = rules.check_fork(new, fork, source.stream)
    new = rules.fork(new, fork, tables.page(connection, source, position, limit=1))
    tables.update_forks(connection, Row(source.id, rules.forked(source.stream)))
    return new
