"""The hub under chance: readers that join anywhere, stall, are cancelled and leave, on loops of their own."""

import asyncio
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_chat.streams.client.relay import Upstream
from durable_chat.streams.hub import Frame, Hub, Room, Source, StoreSource
from durable_chat.streams.protocol.offsets import NOW, START, encode
from durable_chat.streams.server import StreamServer
from durable_chat.streams.stores.base import Append, NewStream, StreamStore
from durable_chat.streams.stores.memory import MemoryStore
from durable_chat.streams.stores.sqlite import SQLiteStore
from tests.streams.hub_contract import Follower, nothing_is_left, soon
from tests.streams.store_contract import ALL, JSON, messages
from tests.streams.test_hub import add

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "join", "step", "step", "cancel", "leave", "breathe"]),
        st.integers(0, 5),
    ),
    max_size=60,
)


def store_source(store: StreamStore, page_bytes: int) -> Source:
    return StoreSource(store, page_bytes)


def service_source(store: StreamStore, page_bytes: int) -> Source:
    return Upstream(StreamServer(store, page_bytes=page_bytes).handle)


@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize("source", [store_source, service_source])
@given(actions=ACTIONS)
def test_any_order_of_events(source: Callable[..., Source], actions: list[tuple[str, int]]) -> None:
    """Readers that join anywhere, stall, are cancelled and leave: each has seen all from where it joined."""

    async def play() -> None:
        store = MemoryStore()
        await store.create("a", NewStream(JSON))
        hub = Hub(source(store, 12), room=Room(frames=2, size=40))
        readers: list[tuple[int, Follower]] = []
        steps: dict[Follower, asyncio.Task[Frame | None]] = {}
        count = 0

        async def stop(follower: Follower) -> None:
            task = steps.pop(follower, None)
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

        for action, number in actions:
            if action == "append":
                await add(store, *range(count, count + number))
                count += number
            elif action == "join":
                start = min(number * 7, count)
                readers.append((start, Follower(hub.reader("a"), await hub.read("a", encode(start)))))
            elif action == "breathe":
                for _ in range(number):
                    await asyncio.sleep(0)
            elif readers:
                _, follower = readers[number % len(readers)]
                if action == "step" and (follower not in steps or steps[follower].done()):
                    steps[follower] = asyncio.create_task(follower.step())
                elif action == "cancel":
                    await stop(follower)
                elif action == "leave":
                    await stop(follower)
                    await follower.reader.__aexit__(None, None, None)
        await store.append("a", Append(close=True))
        for start, follower in readers:
            async with follower.reader:
                if follower in steps:
                    await steps[follower]
                assert await follower.to_the_end() == list(range(start, count))
        assert nothing_is_left()

    asyncio.run(play())


class Crowd:
    """Writers and readers of one stream on a loop of their own; readers come and go as chance has it."""

    def __init__(self, store: StreamStore, hub: Hub, seed: int) -> None:
        self.store = store
        self.hub = hub
        self.chance = random.Random(seed)

    async def gather(self, written: Callable[[], bool]) -> list[list[Frame]]:
        """What each reader saw. ``written`` says whether this crowd was the last to write."""
        reading = [asyncio.create_task(self.read()) for _ in range(10)]
        await asyncio.gather(*(self.write() for _ in range(3)))
        if written():
            await self.store.append("a", Append(close=True))
        seen = await asyncio.gather(*reading)
        assert nothing_is_left()
        return seen

    async def write(self) -> None:
        for _ in range(50):
            size = self.chance.randint(1, 4)
            numbers = b",".join(b"%d" % self.chance.getrandbits(60) for _ in range(size))
            await self.store.append("a", messages(numbers, size))
            await self.dawdle(5)

    async def read(self) -> list[Frame]:
        await self.dawdle(200)
        seen = [await self.hub.read("a", self.chance.choice([START, NOW]))]
        while not seen[-1].closed:
            visit = asyncio.create_task(self.visit(seen))
            if self.chance.random() < 0.5:
                await self.dawdle(20)
                visit.cancel()
            with suppress(asyncio.CancelledError):
                await visit
        return seen

    async def visit(self, seen: list[Frame]) -> None:
        async with self.hub.reader("a") as reader:
            for _ in range(self.chance.randint(1, 20)):
                if seen[-1].closed:
                    return
                frame = await reader.after(seen[-1], until=soon())
                assert frame is not None
                seen.append(frame)
                await self.dawdle(self.chance.choice([0, 2, 100]))

    async def dawdle(self, at_most: int) -> None:
        for _ in range(self.chance.randint(0, at_most)):
            await asyncio.sleep(0)


@pytest.mark.parametrize("source", [store_source, service_source])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_crowds_on_several_loops_see_one_stream(
    kind: str, source: Callable[..., Source], tmp_path: Path
) -> None:
    store = MemoryStore() if kind == "memory" else SQLiteStore(tmp_path / "s", synchronous="NORMAL")
    asyncio.run(store.create("a", NewStream(JSON)))
    hub = Hub(source(store, 200), room=Room(frames=4, size=400))
    writing = [True] * 3
    lock = threading.Lock()

    def written() -> bool:
        with lock:
            writing.pop()
            return not writing

    try:
        with ThreadPoolExecutor(3) as threads:
            crowds = [
                threads.submit(asyncio.run, Crowd(store, hub, seed).gather(written)) for seed in range(3)
            ]
            seen = [frames for crowd in crowds for frames in crowd.result()]
        everything = orjson.loads(b"[%b]" % asyncio.run(store.read("a", 0, limit=ALL)).data)
    finally:
        store.close()
    assert len(seen) == 30
    for frames in seen:
        assert all(before.end == after.start for before, after in pairwise(frames))
        numbers = [number for frame in frames for number in orjson.loads(frame.body)]
        assert numbers == everything[len(everything) - len(numbers) :]
        assert len(numbers) == len(everything) - max(0, int(frames[0].start))
