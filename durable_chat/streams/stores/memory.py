"""A store that keeps streams in this process's memory, for tests and for streams that may be lost."""

import asyncio
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from durable_chat.streams.protocol.errors import InvalidOffset, StreamNotFound, Unavailable
from durable_chat.streams.protocol.headers import is_json
from durable_chat.streams.protocol.producers import ProducerState
from durable_chat.streams.stores import rules
from durable_chat.streams.stores.base import Append, Appended, Batch, Created, NewStream, Page, Stream
from durable_chat.streams.stores.waiters import Waiters


@dataclass(slots=True)
class _Kept:
    """``ends[i]`` is the position after ``batches[i]``."""

    stream: Stream
    batches: list[bytes] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    producers: dict[str, ProducerState] = field(default_factory=dict)

    def add(self, batch: Batch) -> None:
        if batch.length:
            self.batches.append(batch.data)
            self.ends.append(self.stream.tail)


class MemoryStore:
    """Keeps every stream until it is deleted or expires. Implements ``StreamStore``."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._waiters = Waiters()
        self._closed = False

    async def create(self, path: str, new: NewStream) -> Created:
        with self._lock:
            with suppress(StreamNotFound):
                kept = self._find(path)
                rules.check_create(kept.stream, new)
                return Created(kept.stream, new=False)
            kept = self._kept[path] = _Kept(rules.create(new, now=self._clock()))
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
            start = kept.stream.tail if position is None else position
            first = bisect_right(kept.ends, start)
            if start and (first == 0 or kept.ends[first - 1] != start):
                raise InvalidOffset
            last, size = first, 0
            while last < len(kept.batches) and size < limit:
                size += len(kept.batches[last])
                last += 1
            end = kept.ends[last - 1] if last > first else start
            joint = b"," if is_json(kept.stream.content_type) else b""
            return Page(kept.stream, start, end, joint.join(kept.batches[first:last]))

    async def delete(self, path: str) -> None:
        with self._lock:
            self._find(path)
            del self._kept[path]
        self._waiters.wake(path, None)

    async def wait(self, path: str, position: int, *, timeout: float) -> None:
        with self._waiters.at(path, position) as woken, suppress(StreamNotFound, TimeoutError):
            stream = await self.head(path)
            if stream.tail > position or stream.closed:
                return
            async with asyncio.timeout(timeout):
                await woken

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """``aclose`` for callers without a loop."""
        with self._lock:
            self._closed = True
            self._kept.clear()
        self._waiters.wake_all()

    def _find(self, path: str) -> _Kept:
        if self._closed:
            raise Unavailable("The store is closed.")
        kept = self._kept.get(path)
        if kept is None:
            raise StreamNotFound
        if rules.is_over(kept.stream, now=self._clock()):
            del self._kept[path]
            self._waiters.wake(path, None)
            raise StreamNotFound
        return kept

    def _touch(self, kept: _Kept) -> None:
        now = self._clock()
        if rules.touch_due(kept.stream, now=now):
            kept.stream = replace(kept.stream, touched=now)
