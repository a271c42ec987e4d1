"""The hub: each reader sees all of a stream once, whatever the others do, and nothing is left behind."""

import asyncio
from collections.abc import AsyncGenerator
from uuid import uuid4

import pytest

from durable_chat.connections import http_transport
from durable_chat.streams.client.http import HTTPHandler
from durable_chat.streams.client.relay import Upstream
from durable_chat.streams.hub import Frame, Hub, Room, StoreSource
from durable_chat.streams.protocol.errors import StreamNotFound, Unavailable
from durable_chat.streams.protocol.exchange import Handler
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.offsets import NOW, START, encode
from durable_chat.streams.protocol.secrets import StreamsSecret
from durable_chat.streams.server import StreamServer
from durable_chat.streams.stores.base import Append, NewStream, Page, StreamStore
from durable_chat.streams.stores.memory import MemoryStore
from tests.service import Service
from tests.streams.hub_contract import Follower, HubContract, nothing_is_left, soon
from tests.streams.store_contract import JSON, Clock, messages

PAGE = 64
SMALL = Room(frames=3, size=100)


def now() -> float:
    return asyncio.get_running_loop().time()


async def settled() -> None:
    """Until every task that can go on has done so."""
    for _ in range(20):
        await asyncio.sleep(0)


class TestOverAStore(HubContract):
    @pytest.fixture
    def server(self) -> StreamServer:
        return StreamServer(MemoryStore())

    @pytest.fixture
    def service(self, server: StreamServer) -> Handler:
        return server.handle

    @pytest.fixture
    def hub(self, server: StreamServer) -> Hub:
        return Hub(StoreSource(server.store, PAGE), room=SMALL)


class TestOverAService(HubContract):
    @pytest.fixture
    def service(self) -> Handler:
        return StreamServer(MemoryStore(), page_bytes=PAGE).handle

    @pytest.fixture
    def hub(self, service: Handler) -> Hub:
        return Hub(Upstream(service), room=SMALL)


class TestOverTheReferenceServer(HubContract):
    @pytest.fixture
    def service(self, shared_service: Service) -> Handler:
        url = f"{shared_service.gate.url}/v1/stream/{shared_service.id}/{uuid4()}"
        write, read = StreamsSecret(shared_service.secret), StreamsSecret(shared_service.read_secret)
        return HTTPHandler(url, http_transport, token=write, read_token=read)

    @pytest.fixture
    def hub(self, service: Handler) -> Hub:
        # It leaves those hanging who read a stream that is deleted.
        return Hub(Upstream(service, silence=1), room=SMALL)


class Counting(MemoryStore):
    """Counts reads, and fails them while it has an error to raise."""

    reads = 0
    error: Exception | None = None

    async def read(self, path: str, position: int | None, *, limit: int) -> Page:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return await super().read(path, position, limit=limit)


@pytest.fixture
async def store() -> Counting:
    store = Counting()
    await store.create("a", NewStream(JSON))
    return store


@pytest.fixture
def hub(store: Counting) -> Hub:
    return Hub(StoreSource(store, PAGE), room=SMALL)


async def add(store: StreamStore, *numbers: int) -> None:
    for number in numbers:
        await store.append("a", messages(b"%d" % number, 1))


class TestSharing:
    async def test_one_read_and_one_encoding_serve_all(self, store: Counting, hub: Hub) -> None:
        async with hub.reader("a") as first, hub.reader("a") as second:
            followers = [Follower(reader, await hub.read("a", NOW)) for reader in (first, second)]
            steps = [asyncio.create_task(follower.step()) for follower in followers]
            await settled()
            before = store.reads
            await add(store, 1)
            one, other = await asyncio.gather(*steps)
            assert store.reads == before + 1
            assert one is not None
            assert one is other
            assert one.pair is other.pair
        assert nothing_is_left()

    async def test_one_task_as_long_as_there_are_readers(self, store: Counting, hub: Hub) -> None:
        async with hub.reader("a") as first:
            assert await first.after(await hub.read("a", NOW), until=now()) is None
            async with hub.reader("a") as second:
                assert await second.after(await hub.read("a", NOW), until=now()) is None
                assert len(asyncio.all_tasks()) == 2
            assert len(asyncio.all_tasks()) == 2
        assert nothing_is_left()

    async def test_a_reader_that_is_behind_starts_no_tail(self, store: Counting, hub: Hub) -> None:
        await add(store, *range(100))
        async with hub.reader("a") as reader:
            follower = Follower(reader, await hub.read("a", START))
            await follower.step()
            assert not follower.frame.up_to_date
            assert nothing_is_left()

    async def test_a_reader_that_stalls_costs_no_memory_and_misses_nothing(
        self, store: Counting, hub: Hub
    ) -> None:
        async with hub.reader("a") as slow, hub.reader("a") as quick:
            stalled = Follower(slow, await hub.read("a", NOW))
            following = Follower(quick, stalled.frame)
            assert await stalled.step(until=now()) is None
            for number in range(50):
                step = asyncio.create_task(following.step())
                await settled()
                await add(store, number)
                await step
            (tail,) = hub._tails().values()
            assert len(tail.recent) <= SMALL.frames
            while len(stalled.seen) < 50:
                await stalled.step()
            assert stalled.seen == following.seen == list(range(50))
            steps = [asyncio.create_task(follower.step()) for follower in (stalled, following)]
            await settled()
            await add(store, 50)
            one, other = await asyncio.gather(*steps)
            assert one is other  # it has caught up, and shares again
            assert list(tail.recent.values()) == [one]

    async def test_a_reader_that_is_a_little_behind_needs_no_read_of_its_own(
        self, store: Counting, hub: Hub
    ) -> None:
        async with hub.reader("a") as slow, hub.reader("a") as quick:
            behind = Follower(slow, await hub.read("a", NOW))
            following = Follower(quick, behind.frame)
            assert await behind.step(until=now()) is None
            for number in range(SMALL.frames):
                step = asyncio.create_task(following.step())
                await settled()
                await add(store, number)
                await step
            before = store.reads
            while len(behind.seen) < SMALL.frames:
                await behind.step()
            assert behind.seen == following.seen
            assert store.reads == before

    async def test_large_frames_are_not_kept_but_the_last(self, store: Counting, hub: Hub) -> None:
        async with hub.reader("a") as reader:
            stalled = Follower(reader, await hub.read("a", NOW))
            assert await stalled.step(until=now()) is None
            (tail,) = hub._tails().values()
            for _ in range(3):
                await store.append("a", messages(b"1" * 200, 1))
                await settled()
                assert [len(frame.body) for frame in tail.recent.values()] == [202]


class TestEnding:
    async def test_a_closed_stream_ends_all(self, store: Counting, hub: Hub) -> None:
        async with hub.reader("a") as first, hub.reader("a") as second:
            followers = [Follower(reader, await hub.read("a", NOW)) for reader in (first, second)]
            steps = [asyncio.create_task(follower.to_the_end()) for follower in followers]
            await settled()
            await add(store, 1)
            await store.append("a", Append(close=True))
            assert await asyncio.gather(*steps) == [[1], [1]]
            tag = followers[0].frame.tag
            read_before = Frame(tag, JSON, encode(0), encode(1), b"[1]", up_to_date=True, closed=False)
            assert await Follower(first, read_before).to_the_end() == [1]
        assert nothing_is_left()

    @pytest.mark.parametrize("again", [False, True])
    async def test_a_deleted_stream_is_not_found_be_it_created_again(
        self, store: Counting, hub: Hub, again: bool
    ) -> None:
        async with hub.reader("a") as reader, hub.reader("a") as other:
            old = Follower(reader, await hub.read("a", NOW))
            step = asyncio.create_task(old.step())
            await settled()
            await store.delete("a")
            if again:
                await store.create("a", NewStream(JSON))
                await add(store, 1)
                new = Follower(other, await hub.read("a", NOW))
                await add(store, 2)
                await new.step()
                assert new.seen == [2]
            with pytest.raises(StreamNotFound):
                await step
        assert nothing_is_left()

    async def test_a_stream_that_is_replaced_while_a_reader_is_behind(
        self, store: Counting, hub: Hub
    ) -> None:
        await add(store, *range(100))
        async with hub.reader("a") as reader:
            behind = Follower(reader, await hub.read("a", START))
            await store.delete("a")
            await store.create("a", NewStream(JSON))
            await add(store, *range(100))
            with pytest.raises(StreamNotFound):
                await behind.step()

    async def test_a_store_that_fails_ends_readers_and_serves_those_that_come_after(
        self, store: Counting, hub: Hub
    ) -> None:
        async with hub.reader("a") as reader, hub.reader("a") as late:
            frame = await hub.read("a", NOW)
            follower = Follower(reader, frame)
            step = asyncio.create_task(follower.step())
            await settled()
            store.error = Unavailable()
            await add(store, 1)
            with pytest.raises(Unavailable):
                await step
            store.error = None
            resumed = Follower(late, frame)
            await resumed.step()
            assert resumed.seen == [1]
        assert nothing_is_left()

    async def test_what_nobody_foresaw_reaches_the_readers(self, store: Counting, hub: Hub) -> None:
        async with hub.reader("a") as reader:
            follower = Follower(reader, await hub.read("a", NOW))
            step = asyncio.create_task(follower.step())
            await settled()
            store.error = ZeroDivisionError()
            await add(store, 1)
            with pytest.raises(ZeroDivisionError):
                await step

    async def test_a_tail_that_is_cancelled_from_outside(self, store: Counting, hub: Hub) -> None:
        async with hub.reader("a") as reader:
            follower = Follower(reader, await hub.read("a", NOW))
            step = asyncio.create_task(follower.step())
            await settled()
            for task in asyncio.all_tasks() - {step, asyncio.current_task()}:
                task.cancel()
            with pytest.raises(Unavailable):
                await step

    def test_a_loop_that_was_closed_is_forgotten(self) -> None:
        hub = Hub(StoreSource(MemoryStore(), PAGE))

        async def visit() -> None:
            async with hub.reader("a"):
                pass

        for _ in range(3):
            asyncio.run(visit())
        assert len(hub._loops) == 1


class Simulated(MemoryStore):
    """Waiting takes no time, it passes."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.time = clock

    async def reached(self, moment: float) -> None:
        while self.time.now < moment:  # noqa: ASYNC110 - nothing tells of a clock
            await asyncio.sleep(0)

    async def wait(self, path: str, position: int, *, timeout: float) -> None:
        await asyncio.sleep(0)
        if (await self.head(path)).tail == position:
            self.time.now += timeout


class TestTime:
    async def test_each_reader_waits_as_long_as_it_asked_to(self, store: Counting, hub: Hub) -> None:
        async with hub.reader("a") as first, hub.reader("a") as second, hub.reader("a") as third:
            frame = await hub.read("a", NOW)
            patient = asyncio.create_task(third.after(frame, until=soon()))
            short = [first.after(frame, until=now() + 0.02), second.after(frame, until=now() + 0.01)]
            assert await asyncio.gather(*short) == [None, None]
            assert not patient.done()
            assert await first.after(frame, until=now() + 0.01) is None
            await add(store, 1)
            assert await patient is not None

    async def test_a_stream_lives_as_long_as_somebody_reads_it(self) -> None:
        store = Simulated(Clock())
        await store.create("a", NewStream(JSON, Expiry(ttl=10)))
        hub = Hub(StoreSource(store, PAGE))
        async with hub.reader("a") as reader:
            follower = Follower(reader, await hub.read("a", NOW))
            step = asyncio.create_task(follower.step())
            await store.reached(store.time.now + 100)
            await add(store, 1)
            await step
            assert follower.seen == [1]

    async def test_readers_learn_that_a_stream_has_expired(self) -> None:
        store = Simulated(Clock())
        moment = "2027-01-15T08:01:00Z"  # a minute after the clock's begin
        await store.create("a", NewStream(JSON, Expiry(expires_at=moment)))
        hub = Hub(StoreSource(store, PAGE))
        async with hub.reader("a") as reader:
            frame = await hub.read("a", NOW)
            with pytest.raises(StreamNotFound):
                await reader.after(frame, until=soon())


class Elsewhere:
    """A service with offsets of its own, of which only the order means anything."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.arrived = asyncio.Event()
        self.let_go = False

    def put(self, body: bytes) -> None:
        count = len(self.frames)
        self.frames.append(Frame("", JSON, f"x_{count}", f"x_{count + 1}", body, True, False))
        self.arrived.set()

    async def read(self, path: str, offset: str) -> Frame:
        return next(frame for frame in self.frames if frame.start == offset)

    async def follow(self, path: str, frame: Frame) -> AsyncGenerator[Frame, None]:
        try:
            sent = self.frames.index(frame) + 1
            while True:
                while sent < len(self.frames):
                    yield self.frames[sent]
                    sent += 1
                self.arrived.clear()
                await self.arrived.wait()
        finally:
            self.let_go = True


async def test_any_source_will_do() -> None:
    upstream = Elsewhere()
    upstream.put(b"[0]")
    hub = Hub(upstream, room=SMALL)
    async with hub.reader("a") as reader:
        follower = Follower(reader, await hub.read("a", "x_0"))
        for number in range(1, 9):
            upstream.put(b"[%d]" % number)
        await asyncio.sleep(0)
        while len(follower.seen) < 9:
            await follower.step()
        assert follower.seen == list(range(9))
        assert not upstream.let_go
    assert upstream.let_go
    assert nothing_is_left()
