"""A store in a SQLite file of its own: durable before it is acknowledged."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from durable_chat.streams.protocol.errors import StreamNotFound
from durable_chat.streams.stores import rules, tables
from durable_chat.streams.stores.base import Append, Appended, Created, NewStream, Page, Stream
from durable_chat.streams.stores.jobs import Inbox
from durable_chat.streams.stores.tables import Row, Synchronous
from durable_chat.streams.stores.threads import File, Reader, Transaction, Writer
from durable_chat.streams.stores.waiters import Waiters

_READERS: Final = 2


class SQLiteStore:
    """Keeps streams in the file at ``path``; other processes may use it too. Implements ``StreamStore``.

    ``synchronous`` is SQLite's: with FULL what was acknowledged survives a power cut, with NORMAL only the
    death of the process. The file is opened, and made if need be, by the first call that needs it; one that
    stays locked by another process for ``busy_seconds`` is ``Unavailable``.
    """

    def __init__(
        self,
        path: Path,
        *,
        synchronous: Synchronous = "FULL",
        busy_seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        file = File(path, synchronous, busy_seconds)
        self._clock = clock
        self._lock = threading.Lock()
        self._started = False
        self._waiters = Waiters()
        self._writes: Inbox[Transaction] = Inbox()
        self._reads: Inbox[sqlite3.Connection] = Inbox(workers=_READERS)
        self._writer = Writer(file, self._writes, self._waiters)
        self._threads: list[threading.Thread] = [
            self._writer,
            *(Reader("reader", file, self._reads) for _ in range(_READERS)),
        ]

    async def create(self, path: str, new: NewStream) -> Created:
        self._start()
        return await self._writes.ask(partial(self._create, path, new))

    async def append(self, path: str, append: Append) -> Appended:
        self._start()
        return await self._writes.ask(partial(self._append, path, append))

    async def head(self, path: str) -> Stream:
        self._start()
        return (await self._reads.ask(partial(self._find, path))).stream

    async def read(self, path: str, position: int | None, *, limit: int) -> Page:
        self._start()
        page = await self._reads.ask(partial(self._read, path, position, limit=limit))
        now = self._clock()
        if rules.touch_due(page.stream, now=now):  # noted behind the answer: no reader waits for the writer
            self._writes.tell(partial(_touch, path, page.stream.tag, now))
        return page

    async def delete(self, path: str) -> None:
        self._start()
        await self._writes.ask(partial(self._delete, path))

    async def wait(self, path: str, position: int, *, timeout: float) -> None:
        with self._waiters.at(path, position) as woken, suppress(StreamNotFound, TimeoutError):
            if not self._writer.watches:
                self._writes.nudge()
            stream = await self.head(path)
            if stream.tail > position or stream.closed:
                return
            async with asyncio.timeout(timeout):
                await woken

    async def aclose(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.close)

    def close(self) -> None:
        """``aclose`` for callers without a loop. What was asked before is done first."""
        with self._lock:
            self._writes.close()
            self._reads.close()
            if self._started:
                for thread in self._threads:
                    thread.join()
        self._waiters.wake_all()

    def _start(self) -> None:
        if self._started:
            return
        with self._lock:
            if not self._started:
                for thread in self._threads:
                    thread.start()
                self._started = True

    def _create(self, path: str, new: NewStream, transaction: Transaction) -> Created:
        row = self._live(path, transaction)
        if row is not None:
            rules.check_create(row.stream, new)
            return Created(row.stream, new=False)
        stream = rules.create(new, now=self._clock())
        tables.insert(transaction.connection, path, stream, new.batch)
        return Created(stream, new=True)

    def _append(self, path: str, append: Append, transaction: Transaction) -> Appended:
        row = self._live(path, transaction)
        if row is None:
            raise StreamNotFound
        connection, stamp = transaction.connection, append.producer
        producer = None if stamp is None else tables.producer_of(connection, row, stamp)
        if not rules.check_append(row.stream, append, producer):
            return Appended(row.stream, new=False, producer=producer)
        stream = rules.apply_append(row.stream, append, now=self._clock())
        tables.update(connection, Row(row.id, stream), append.batch)
        if stamp is not None:
            tables.remember(connection, row, stamp)
        transaction.moved[path] = None if stream.closed else stream.tail
        return Appended(stream, new=True, producer=rules.producer_after(append, producer))

    def _delete(self, path: str, transaction: Transaction) -> None:
        row = self._live(path, transaction)
        if row is None:
            raise StreamNotFound
        transaction.erase(path, row)

    def _live(self, path: str, transaction: Transaction) -> Row | None:
        """The stream, unless it has expired, which erases it."""
        row = tables.find(transaction.connection, path)
        if row is None or not rules.is_over(row.stream, now=self._clock()):
            return row
        transaction.erase(path, row)
        return None

    def _read(self, path: str, position: int | None, connection: sqlite3.Connection, *, limit: int) -> Page:
        row = self._find(path, connection)
        return tables.page(connection, row, row.stream.tail if position is None else position, limit=limit)

    def _find(self, path: str, connection: sqlite3.Connection) -> Row:
        row = tables.find(connection, path)
        if row is None:
            raise StreamNotFound
        if rules.is_over(row.stream, now=self._clock()):
            self._writes.tell(partial(self._live, path))
            raise StreamNotFound
        return row


def _touch(path: str, tag: str, now: float, transaction: Transaction) -> None:
    tables.touch(transaction.connection, path, tag, now)
