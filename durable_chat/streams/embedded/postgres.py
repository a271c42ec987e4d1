"""A store in the site's own PostgreSQL: durable before it is acknowledged, shared by all its processes."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from durable_chat.streams.embedded import postgres_tables as tables
from durable_chat.streams.embedded.postgres_connection import Connection, Database, snapshot
from durable_chat.streams.embedded.postgres_drain import Drain, Write
from durable_chat.streams.embedded.postgres_listener import Listener
from durable_chat.streams.embedded.postgres_tables import Row
from durable_chat.streams.embedded.postgres_threads import SWEPT_AT_ONCE, Reader, Writer
from durable_chat.streams.protocol.errors import StreamNotFound
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.stores import rules
from durable_chat.streams.stores.base import Append, Appended, Created, NewStream, Page, Stream
from durable_chat.streams.stores.catalogue import Listed
from durable_chat.streams.stores.threaded import ThreadedStore

_READERS: Final = 3


class PostgresStore(ThreadedStore[Connection, Drain]):
    """Keeps streams in the tables of the ``durable_streams`` app. A ``CataloguedStore``.

    ``parameters`` gives what psycopg needs to connect, and is asked for every connection. A process holds one
    connection that writes, a few that read and, once somebody waits, one that listens; they are opened by the
    first call that needs them, and again after the database was gone. ``pooled`` is for a pooler that lends
    connections by the transaction: then nothing is kept in a session, and tails are polled. A stream whose
    row another process holds for ``busy_seconds`` is ``Unavailable``. Nothing is read from memory: nothing
    tells without a round trip whether another process has been there meanwhile.
    """

    def __init__(
        self,
        parameters: Callable[[], Mapping[str, Any]],
        *,
        pooled: bool = False,
        busy_seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        database = Database(parameters, pooled, busy_seconds)
        super().__init__(readers=_READERS, clock=clock)
        self._listener = Listener(database, self._waiters)
        writer = Writer(database, self._writes, self._waiters, sweep=self._sweep)
        readers = (Reader("reader", database, self._reads) for _ in range(_READERS))
        self._hire([writer, *readers])

    async def create(self, path: str, new: NewStream) -> Created:
        self._crew.start()
        forks = new.fork is not None
        paths = (path,) if new.fork is None else (path, new.fork.source)
        size = len(new.batch.data)
        return await self._writes.ask(
            Write(partial(self._create, path, new), paths, creates=True, reads=forks, size=size)
        )

    async def append(self, path: str, append: Append) -> Appended:
        self._crew.start()
        size = len(append.batch.data)
        return await self._writes.ask(
            Write(partial(self._append, path, append), (path,), append.producer, size=size)
        )

    async def delete(self, path: str) -> None:
        self._crew.start()
        await self._writes.ask(Write(partial(self._delete, path), (path,), deletes=True))

    async def scan(self, *, prefix: str = "", after: str = "", limit: int) -> list[Listed]:
        self._crew.start()
        return await self._reads.ask(
            partial(tables.scan, prefix=prefix, after=after, limit=limit, now=self._clock())
        )

    async def sweep(self, *, limit: int) -> int:
        self._crew.start()
        return await self._writes.ask(Write(partial(self._sweep, limit=limit)))

    def _create(self, path: str, new: NewStream, drain: Drain) -> Created:
        row = self._look(path, drain)
        source = None if new.fork is None else self._look(new.fork.source, drain)
        if row is not None:
            rules.check_create(row.stream, new, source=None if source is None else source.stream)
            return Created(row.stream, new=False)
        if new.fork is not None:
            new = _fork(new, new.fork, source, drain)
        stream = rules.create(new, now=self._clock())
        drain.insert(path, stream, new.batch)
        return Created(stream, new=True)

    def _append(self, path: str, append: Append, drain: Drain) -> Appended:
        row, stamp = self._find(path, drain), append.producer
        producer = None if stamp is None else drain.producer_of(path, stamp)
        if not rules.check_append(row.stream, append, producer):
            return Appended(row.stream, new=False, producer=producer)
        stream = rules.apply_append(row.stream, append, now=self._clock())
        drain.append(path, stream, append.batch)
        if stamp is not None:
            drain.remember(path, stamp)
        return Appended(stream, new=True, producer=rules.producer_after(append, producer))

    def _delete(self, path: str, drain: Drain) -> None:
        self._find(path, drain)
        drain.delete(path)

    def _find(self, path: str, drain: Drain) -> Row:
        row = self._look(path, drain)
        if row is None:
            raise StreamNotFound
        rules.check_there(row.stream, now=self._clock())
        return row

    def _look(self, path: str, drain: Drain) -> Row | None:
        """What is kept at a path, deleted or not. What has expired is deleted first."""
        if self._is_over(path, drain):
            drain.delete(path)
        return drain.find(path)

    def _is_over(self, path: str, drain: Drain) -> bool:
        row = drain.find(path)
        return row is not None and rules.is_over(row.stream, now=self._clock())

    def _sweep(self, drain: Drain, *, limit: int = SWEPT_AT_ONCE) -> int:
        ended = tables.ended(drain.connection, now=self._clock(), limit=limit)
        drain.look_ahead(ended)
        over = [path for path in ended if self._is_over(path, drain)]
        for path in over:
            self._look(path, drain)
        return len(over)

    def _touch(self, path: str, stream: Stream) -> Write:
        return Write(partial(_note_use, path, stream), (path,))

    def _attend(self) -> None:
        self._listener.attend()

    def _let_go(self) -> None:
        self._listener.close()

    def _head(self, path: str, connection: Connection) -> Stream:
        return self._check_there(path, tables.find(connection, path)).stream

    def _read(self, path: str, position: int | None, connection: Connection, *, limit: int) -> Page:
        found = tables.read(connection, path, position, limit=limit)
        row, batches = (None, ()) if found is None else found
        stream = self._check_there(path, row).stream
        start = stream.tail if position is None else position
        if start >= stream.start:
            return rules.page(stream, start, batches, limit=limit)
        with snapshot(connection):
            row = self._check_there(path, tables.find(connection, path))
            return tables.page(connection, row, start, limit=limit)

    def _check_there(self, path: str, row: Row | None) -> Row:
        if row is None:
            raise StreamNotFound
        if rules.is_over(row.stream, now=self._clock()):
            self._writes.tell(Write(partial(self._look, path), (path,), deletes=True))
        rules.check_there(row.stream, now=self._clock())
        return row


def _fork(new: NewStream, fork: Fork, source: Row | None, drain: Drain) -> NewStream:
    """The request with what it takes from its source, which has one fork more."""
    if source is None:
        raise StreamNotFound("There is no stream to fork.")
    position = rules.check_fork(new, fork, source.stream)
    new = rules.fork(new, fork, drain.page(source, position, limit=1))
    drain.update(fork.source, rules.forked(source.stream))
    return new


def _note_use(path: str, stream: Stream, drain: Drain) -> None:
    row = drain.find(path)
    if row is not None and row.stream.tag == stream.tag and row.stream.touched < stream.touched:
        drain.update(path, row.stream._replace(touched=stream.touched))
