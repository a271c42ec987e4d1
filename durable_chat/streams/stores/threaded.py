"""What the stores have in common whose work threads do: one that writes, and a few that read."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any, Generic, TypeVar

from durable_chat.streams.protocol.errors import StreamGone, StreamNotFound
from durable_chat.streams.stores import rules
from durable_chat.streams.stores.base import Page, Stream
from durable_chat.streams.stores.jobs import Crew, Inbox
from durable_chat.streams.stores.waiters import Waiters

R = TypeVar("R")
W = TypeVar("W")


class ThreadedStore(ABC, Generic[R, W]):
    """A store but for what its database is asked. Reads work on an ``R``, writes on a ``W``."""

    def __init__(self, *, readers: int, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._waiters = Waiters()
        self._writes: Inbox[W] = Inbox()
        self._reads: Inbox[R] = Inbox(workers=readers)

    def _hire(self, threads: Sequence[Thread]) -> None:
        """To be called once, with the threads that take from the inboxes."""
        self._crew = Crew([self._writes, self._reads], threads)

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
            self._writes.tell(self._touch(path, page.stream._replace(touched=now)))
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
    def _touch(self, path: str, stream: Stream) -> Callable[[W], Any]:
        """The write that notes when a stream has been used, if it is still the one that was."""

    @abstractmethod
    def _attend(self) -> None:
        """Somebody begins to wait: hear of what other processes commit."""

    @abstractmethod
    def _let_go(self) -> None:
        """End what is held besides the threads."""
