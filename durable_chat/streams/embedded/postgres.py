"""A store in the site's own PostgreSQL: durable before it is acknowledged, shared by all its processes."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from durable_chat.streams.embedded import postgres_tables as tables
from durable_chat.streams.embedded.postgres_connection import Connection, Database, snapshot
from durable_chat.streams.embedded.postgres_drain import PostgresDrain
from durable_chat.streams.embedded.postgres_listener import Listener
from durable_chat.streams.embedded.postgres_threads import Reader, Writer
from durable_chat.streams.protocol.errors import StreamNotFound
from durable_chat.streams.stores import rules
from durable_chat.streams.stores.base import Page, Stream
from durable_chat.streams.stores.catalogue import Listed
from durable_chat.streams.stores.drain import Drain, Row, Write
from durable_chat.streams.stores.threaded import ThreadedStore

_READERS: Final = 3


class PostgresStore(ThreadedStore[Connection]):
    """Keeps streams in the tables of the ``durable_streams`` app. A ``CataloguedStore``.

    ``parameters`` gives what psycopg needs to connect, and is asked for every connection. A process holds one
    connection that writes, a few that read and, once somebody waits, one that listens; they are opened by the
    first call that needs them, and again after the database was gone. ``pooled`` is for a pooler that lends
    connections by the transaction: then nothing is kept in a session, and tails are polled. A stream whose
    row another process holds for ``busy_seconds`` is ``Unavailable``. Reads are never answered from memory:
    nothing tells without a round trip whether another process has been there meanwhile. Writes go by what the
    last ones left, and ask in the same round trip whether it is still so.
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

    async def scan(self, *, prefix: str = "", after: str = "", limit: int) -> list[Listed]:
        self._crew.start()
        return await self._reads.ask(
            partial(tables.scan, prefix=prefix, after=after, limit=limit, now=self._clock())
        )

    def _ended(self, drain: Drain, *, now: float, limit: int) -> list[str]:
        assert isinstance(drain, PostgresDrain)
        return tables.ended(drain.connection, now=now, limit=limit)

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
