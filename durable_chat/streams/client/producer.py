"""One writer of one stream: batches, one append in flight, each taken exactly once."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import orjson

from durable_chat.streams.client.backoff import Backoff
from durable_chat.streams.client.client import StreamClient
from durable_chat.streams.client.values import Stamp
from durable_chat.streams.protocol.errors import Unavailable

_BATCH_BYTES = 256 * 1024


@dataclass(slots=True, eq=False)
class _Batch:
    """One append to be: closed to further items when ``sealed``, ended (well or not) when ``settled``."""

    items: list[orjson.Fragment] = field(default_factory=list)
    size: int = 0
    sealed: bool = False
    offset: str | None = None
    settled: asyncio.Event = field(default_factory=asyncio.Event)


class Producer:
    """One epoch of one idempotent producer (section 5.2.1). An async context manager.

    An append that fails with Unavailable is repeated under the same epoch and seq, which the server takes
    once, until ``give_up_after`` seconds have passed. Any other StreamError is final: whichever call comes
    next raises it, and nothing more is sent. ``offset`` is the tail after the last confirmed append.
    """

    def __init__(
        self,
        client: StreamClient,
        path: str,
        *,
        id: str,
        epoch: int,
        seq: int = 0,
        give_up_after: float = 60.0,
        max_buffer: int = 10_000,
        max_batch: int = 500,
    ) -> None:
        self.offset: str | None = None
        self._client = client
        self._path = path
        self._stamp = Stamp(id, epoch, seq)
        self._give_up_after = give_up_after
        self._max_buffer = max_buffer
        self._max_batch = max_batch
        self._queue: deque[_Batch] = deque()  # the first is in flight while the sender runs
        self._buffered = 0
        self._sender: asyncio.Task[None] | None = None
        self._left = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what is queued; a failure of that is raised unless the block failed first."""
        self._left = True
        if self._sender is None:
            return
        if kind is None:
            await self._sender
        else:
            await asyncio.gather(self._sender, return_exceptions=True)

    async def add(self, item: Any) -> None:
        """Queue one item. It goes at once when nothing is in flight, else with the next batch.

        Waits while the buffer is full, with the item in it: a cancelled wait loses nothing. Raises TypeError
        for what is not JSON, and the sender's error if it has failed.
        """
        self._check()
        encoded = orjson.dumps(item)
        self._put(self._open_batch(len(encoded)), encoded)
        self._start()
        while self._buffered > self._max_buffer:
            await self._settled(self._queue[0])

    async def append(self, items: Sequence[Any]) -> str:
        """Append ``items`` as one batch of their own after what is queued; the offset after them."""
        if not items:
            raise ValueError("An append needs an item.")
        self._check()
        encoded = [orjson.dumps(item) for item in items]
        batch = self._new_batch()
        for item in encoded:
            self._put(batch, item)
        batch.sealed = True
        self._start()
        return await self._settled(batch)

    async def flush(self) -> str | None:
        """Wait until everything queued so far is confirmed; the offset after it, if anything ever was."""
        self._check()
        return await self._settled(self._queue[-1]) if self._queue else self.offset

    def _check(self) -> None:
        """Raise what the sender failed with: the task keeps it, and is not started again."""
        if self._sender is not None and self._sender.done():
            self._sender.result()

    async def _settled(self, batch: _Batch) -> str:
        await batch.settled.wait()
        if batch.offset is None:
            self._check()
        assert batch.offset is not None
        return batch.offset

    def _open_batch(self, size: int) -> _Batch:
        last = self._queue[-1] if self._queue else None
        if (
            last is None
            or last.sealed
            or len(last.items) >= self._max_batch
            or last.size + size > _BATCH_BYTES
        ):
            return self._new_batch()
        return last

    def _new_batch(self) -> _Batch:
        if self._left:
            raise RuntimeError("This producer has been left.")
        batch = _Batch()
        self._queue.append(batch)
        return batch

    def _put(self, batch: _Batch, encoded: bytes) -> None:
        batch.items.append(orjson.Fragment(encoded))
        batch.size += len(encoded)
        self._buffered += 1

    def _start(self) -> None:
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        try:
            while self._queue:
                batch = self._queue[0]
                batch.sealed = True
                self.offset = batch.offset = await self._send(batch)
                self._queue.popleft()
                self._buffered -= len(batch.items)
                batch.settled.set()
        finally:
            for batch in self._queue:  # only a failure leaves any: their waiters find it in the task
                batch.settled.set()

    async def _send(self, batch: _Batch) -> str:
        backoff = Backoff(self._give_up_after)
        while True:
            try:
                appended = await self._client.append(self._path, batch.items, producer=self._stamp)
                # A duplicate may carry no offset. While the epoch holds, nobody else has moved the tail.
                offset = appended.offset or (await self._client.head(self._path)).offset
            except Unavailable as error:
                await backoff.pause(error)
            else:
                self._stamp = Stamp(self._stamp.id, self._stamp.epoch, self._stamp.seq + 1)
                return offset
