"""What the stores have in common whose work threads do: one that writes, and a few that read."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any, Final, Generic, TypeVar

from durable_chat.streams.protocol.errors import StreamGone, StreamNotFound
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.stores import rules
from durable_chat.streams.stores.base import Append, Appended, Created, NewStream, Page, Stream
from durable_chat.streams.stores.drain import Drain, Row, Write
from durable_chat.streams.stores.jobs import Crew, Inbox
from durable_chat.streams.stores.waiters import Waiters

R = TypeVar("R")

SWEPT_AT_ONCE: Final = 100
"""How many expired streams one transaction erases at most."""


class ThreadedStore(ABC, Generic[R]):
    """A store but for what its database is asked. Reads work on an ``R``, writes on a ``Drain``."""

    def __init__(self, *, readers: int, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._waiters = Waiters()
        self._writes: Inbox[Drain] = Inbox()
        self._reads: Inbox[R] = Inbox(workers=readers)

    def _hire(self, threads: Sequence[Thread]) -> None:
        """To be called once, with the threads that take from the inboxes."""
        self._crew = Crew([self._writes, self._reads], threads)

    async def create(self, path: str, new: NewStream) -> Created:
        forks = new.fork is not None
        paths = (path,) if new.fork is None else (path, new.fork.source)
        work = partial(self._create, path, new)
        created: Created = await self._write(
            Write(work, paths, creates=True, reads=forks, size=len(new.batch.data))
        )
        return created

    async def append(self, path: str, append: Append) -> Appended:
        work = partial(self._append, path, append)
        appended: Appended = await self._write(
            Write(work, (path,), append.producer, size=len(append.batch.data))
        )
        return appended

    async def delete(self, path: str) -> None:
        await self._write(Write(partial(self._delete, path), (path,), deletes=True))

    async def sweep(self, *, limit: int) -> int:
        erased: int = await self._write(Write(partial(self._sweep, limit=limit)))
        return erased

    async def _write(self, write: Write) -> Any:
        self._crew.start()
        return await self._writes.ask(write)

    async def head(self, path: str) -> Stream:
        self._crew.start()
        stream = self._at_hand(path)
        return await self._reads.ask(partial(self._head, path)) if stream is None else stream

    async def read(self, path: str, position: int | None, *, limit: int) -> Page:
        self._crew.start()
        page = self._recall(path, position, limit=limit)
        if page is None:
            page = await self._reads.ask(partial(self._read, path, position, limit=limit))
        now = self._clock()
        if rules.touch_due(page.stream, now=now):  # noted behind the answer: no reader waits for the writer
            self._writes.tell(Write(partial(_note_use, path, page.stream._replace(touched=now)), (path,)))
        return page

    async def wait(self, path: str, position: int, *, timeout: float) -> None:
        with self._waiters.at(path, position) as woken, suppress(StreamNotFound, StreamGone, TimeoutError):
            self._attend()
            stream = await self.head(path)
            if stream.tail > position or stream.closed:
                return
            async with asyncio.timeout(timeout):
                await woken

    async def aclose(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.close)

    def close(self) -> None:
        """``aclose`` for callers without a loop. What was asked before is done first."""
        self._crew.close()
        self._let_go()
        self._waiters.wake_all()

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
        stream, stamp = self._there(path, drain), append.producer
        producer = None if stamp is None else drain.producer_of(path, stamp)
        if not rules.check_append(stream, append, producer):
            return Appended(stream, new=False, producer=producer)
        stream = rules.apply_append(stream, append, now=self._clock())
        drain.append(path, stream, append.batch)
        if stamp is not None:
            drain.remember(path, stamp)
        return Appended(stream, new=True, producer=rules.producer_after(append, producer))

    def _delete(self, path: str, drain: Drain) -> None:
        self._there(path, drain)
        drain.delete(path)

    def _there(self, path: str, drain: Drain) -> Stream:
        row = self._look(path, drain)
        if row is None:
            raise StreamNotFound
        rules.check_there(row.stream, now=self._clock())
        return row.stream

    def _look(self, path: str, drain: Drain) -> Row | None:
        """What is kept at a path, deleted or not. What has expired is deleted first."""
        row = drain.find(path)
        if row is None or not rules.is_over(row.stream, now=self._clock()):
            return row
        drain.delete(path)
        return drain.find(path)

    def _sweep(self, drain: Drain, *, limit: int = SWEPT_AT_ONCE) -> int:
        ended = self._ended(drain, now=self._clock(), limit=limit)
        drain.look_ahead(*ended)
        rows = [(path, drain.find(path)) for path in ended]
        over = [path for path, row in rows if row and rules.is_over(row.stream, now=self._clock())]
        for path in over:
            self._look(path, drain)
        return len(over)

    def _at_hand(self, path: str) -> Stream | None:
        """What ``head`` answers, if that can be told without a thread."""
        return None

    def _recall(self, path: str, position: int | None, *, limit: int) -> Page | None:
        """What ``read`` answers, if that can be told without a thread."""
        return None

    @abstractmethod
    def _head(self, path: str, reader: R) -> Stream: ...

    @abstractmethod
    def _read(self, path: str, position: int | None, reader: R, *, limit: int) -> Page: ...

    @abstractmethod
    def _ended(self, drain: Drain, *, now: float, limit: int) -> list[str]:
        """Paths of streams that have expired, the oldest first."""

    @abstractmethod
    def _attend(self) -> None:
        """Somebody begins to wait: hear of what other processes commit."""

    @abstractmethod
    def _let_go(self) -> None:
        """End what is held besides the threads."""


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
