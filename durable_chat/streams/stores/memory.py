"""A store that keeps streams in this process's memory, for tests and for streams that may be lost."""

import asyncio
import threading
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import chain, islice
from typing import Final

from durable_chat.streams.protocol import forks
from durable_chat.streams.protocol.errors import StreamGone, StreamNotFound, Unavailable
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.protocol.producers import ProducerState
from durable_chat.streams.stores import rules
from durable_chat.streams.stores.base import Append, Appended, Batch, Created, NewStream, Page, Stream
from durable_chat.streams.stores.catalogue import Listed
from durable_chat.streams.stores.waiters import Waiters

_SWEPT_WITH_EACH: Final = 2  # erased with each stream that is made, so that what has expired does not pile up

_ENDS_TO_SPARE: Final = 64  # what the heap may hold in vain, beside as many as there are streams


@dataclass(slots=True)
class _Kept:
    """``ends[i]`` is the position after ``batches[i]``."""

    stream: Stream
    batches: list[bytes] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    producers: dict[str, ProducerState] = field(default_factory=dict)
    size: int = 0

    def add(self, batch: Batch) -> None:
        if batch.length:
            self.batches.append(batch.data)
            self.ends.append(self.stream.tail)
            self.size += len(batch.data)

    def between(self, after: int, until: int) -> Iterator[tuple[int, int, bytes]]:
        """Its own batches (from, to, data) that end past one position and not past another."""
        first = bisect_right(self.ends, after)
        start = self.ends[first - 1] if first else self.stream.start
        for index in range(first, bisect_right(self.ends, until)):
            end = self.ends[index]
            yield start, end, self.batches[index]
            start = end


class MemoryStore:
    """Keeps every stream until it is deleted or expires. A ``CataloguedStore``."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._paths: list[str] = []  # sorted
        self._ends: list[tuple[float, str, str]] = []  # a heap of (end, path, tag); the end may have moved on
        self._waiters = Waiters()
        self._closed = False

    async def create(self, path: str, new: NewStream) -> Created:
        with self._lock:
            self._sweep(limit=_SWEPT_WITH_EACH)
            kept = self._look(path)
            source = None if new.fork is None else self._look(new.fork.source)
            if kept is not None:
                rules.check_create(kept.stream, new, source=None if source is None else source.stream)
                return Created(kept.stream, new=False)
            if new.fork is not None:
                new = self._fork(new, new.fork, source)
            kept = self._kept[path] = _Kept(rules.create(new, now=self._clock()))
            insort(self._paths, path)
            self._expect_end(path, kept.stream)
            kept.add(new.batch)
            return Created(kept.stream, new=True)

    async def append(self, path: str, append: Append) -> Appended:
        with self._lock:
            kept = self._find(path)
            stamp = append.producer
            producer = None if stamp is None else kept.producers.get(stamp.producer_id)
            if not rules.check_append(kept.stream, append, producer):
                return Appended(kept.stream, new=False, producer=producer)
            producer = rules.producer_after(append, producer)
            if stamp is not None and producer is not None:
                kept.producers[stamp.producer_id] = producer
            stream = kept.stream = rules.apply_append(kept.stream, append, now=self._clock())
            kept.add(append.batch)
        self._waiters.wake(path, None if stream.closed else stream.tail)
        return Appended(stream, new=True, producer=producer)

    async def head(self, path: str) -> Stream:
        with self._lock:
            return self._find(path).stream

    async def read(self, path: str, position: int | None, *, limit: int) -> Page:
        with self._lock:
            kept = self._find(path)
            self._touch(kept)
            return self._page(kept, kept.stream.tail if position is None else position, limit=limit)

    async def delete(self, path: str) -> None:
        with self._lock:
            self._drop(path, self._find(path))

    async def wait(self, path: str, position: int, *, timeout: float) -> None:
        with self._waiters.at(path, position) as woken, suppress(StreamNotFound, StreamGone, TimeoutError):
            stream = await self.head(path)
            if stream.tail > position or stream.closed:
                return
            async with asyncio.timeout(timeout):
                await woken

    async def scan(self, *, prefix: str = "", after: str = "", limit: int) -> list[Listed]:
        found: list[Listed] = []
        with self._lock:
            self._check_open()
            first = bisect_left(self._paths, prefix) if prefix > after else bisect_right(self._paths, after)
            for path in islice(self._paths, first, None):
                if len(found) == limit or not path.startswith(prefix):
                    break
                kept = self._kept[path]
                if not kept.stream.deleted and not rules.is_over(kept.stream, now=self._clock()):
                    found.append(Listed(path, kept.stream, kept.size))
        return found

    async def sweep(self, *, limit: int) -> int:
        with self._lock:
            self._check_open()
            return self._sweep(limit=limit)

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """``aclose`` for callers without a loop."""
        with self._lock:
            self._closed = True
            self._kept.clear()
            self._paths.clear()
            self._ends.clear()
        self._waiters.wake_all()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("The store is closed.")

    def _find(self, path: str) -> _Kept:
        kept = self._look(path)
        if kept is None:
            raise StreamNotFound
        rules.check_there(kept.stream, now=self._clock())
        return kept

    def _look(self, path: str) -> _Kept | None:
        """What is kept at a path, deleted or not. What has expired is deleted first."""
        self._check_open()
        kept = self._kept.get(path)
        if kept is not None and rules.is_over(kept.stream, now=self._clock()):
            self._drop(path, kept)
        return self._kept.get(path)

    def _fork(self, new: NewStream, fork: Fork, source: _Kept | None) -> NewStream:
        """The request with what it takes from its source, which has one fork more."""
        if source is None:
            raise StreamNotFound("There is no stream to fork.")
        position = rules.check_fork(new, fork, source.stream)
        new = rules.fork(new, fork, self._page(source, position, limit=1))
        source.stream = rules.forked(source.stream)
        return new

    def _page(self, kept: _Kept, start: int, *, limit: int) -> Page:
        pieces = forks.pieces(self._lineage(kept), start, tail=kept.stream.tail)
        following = chain.from_iterable(piece.between(after, until) for piece, after, until in pieces)
        return rules.page(kept.stream, start, following, limit=limit)

    def _lineage(self, kept: _Kept) -> Iterator[tuple[_Kept, int]]:
        yield kept, kept.stream.start
        while kept.stream.fork is not None:
            kept = self._kept[kept.stream.fork.source]
            yield kept, kept.stream.start

    def _drop(self, path: str, kept: _Kept) -> None:
        """Delete a stream: now, or once its last fork has ended."""
        kept.stream = kept.stream._replace(deleted=True)
        kept.producers.clear()
        self._waiters.wake(path, None)
        while rules.is_left(kept.stream):
            del self._kept[path]
            del self._paths[bisect_left(self._paths, path)]
            if kept.stream.fork is None:
                return
            path = kept.stream.fork.source
            kept = self._kept[path]
            kept.stream = rules.released(kept.stream)

    def _sweep(self, *, limit: int) -> int:
        erased, now = 0, self._clock()
        while erased < limit and self._ends and self._ends[0][0] <= now:
            _, path, tag = heappop(self._ends)
            kept = self._kept.get(path)
            if kept is None or kept.stream.tag != tag:
                continue
            if rules.is_over(kept.stream, now=now):
                self._drop(path, kept)
                erased += 1
            else:
                self._expect_end(path, kept.stream)  # it has been used meanwhile
        return erased

    def _expect_end(self, path: str, stream: Stream) -> None:
        if stream.ends is not None:
            heappush(self._ends, (stream.ends, path, stream.tag))
        if len(self._ends) > 2 * len(self._kept) + _ENDS_TO_SPARE:
            self._forget_ends()

    def _forget_ends(self) -> None:
        """Drop those of streams that were deleted before they expired."""
        kept = ((kept.stream.ends, path, kept.stream.tag) for path, kept in self._kept.items())
        self._ends = [(ends, path, tag) for ends, path, tag in kept if ends is not None]
        heapify(self._ends)

    def _touch(self, kept: _Kept) -> None:
        now = self._clock()
        if rules.touch_due(kept.stream, now=now):
            kept.stream = kept.stream._replace(touched=now)
