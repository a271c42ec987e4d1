"""What every store does over time: who waits, what expires, many threads, its end (see test_stores.py)."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from durable_chat.streams.protocol.errors import (
    StreamNotFound,
    Unavailable,
)
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.stores.base import Append, Batch, NewStream, StreamStore
from tests.streams.store_contract import (
    ALL,
    JSON,
    SOON,
    TEXT,
    Clock,
    StoreContract,
    begun,
    messages,
    read_all,
    text,
)


class Waiting:
    """How a store wakes who waits; part of the contract."""

    async def test_returns_at_once_when_there_is_something(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT, batch=Batch(b"x", 1)))
        await store.wait("a", 0, timeout=SOON)
        await store.append("a", Append(close=True))
        await store.wait("a", 1, timeout=SOON)

    async def test_returns_at_once_when_there_is_no_stream(self, store: StreamStore) -> None:
        await store.wait("nowhere", 0, timeout=SOON)

    async def test_returns_after_its_time(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT))
        await store.wait("a", 0, timeout=0.01)
        await store.wait("a", 0, timeout=0)

    @pytest.mark.parametrize(
        "event",
        [
            lambda store: store.append("a", text(b"x")),
            lambda store: store.append("a", Append(close=True)),
            lambda store: store.delete("a"),
        ],
        ids=["append", "close", "delete"],
    )
    async def test_is_woken(
        self, store: StreamStore, event: Callable[[StreamStore], Awaitable[object]]
    ) -> None:
        await store.create("a", NewStream(TEXT))
        waits = [asyncio.create_task(store.wait("a", 0, timeout=SOON)) for _ in range(20)]
        await begun(store)
        await event(store)
        await asyncio.wait_for(asyncio.gather(*waits), SOON / 2)

    async def test_other_streams_wake_nobody(self, store: StreamStore) -> None:
        for path in ("a", "b"):
            await store.create(path, NewStream(TEXT))
        wait = asyncio.create_task(store.wait("a", 0, timeout=SOON))
        await begun(store)
        for _ in range(5):
            await store.append("b", text(b"x"))
        assert not wait.done()
        await store.append("a", text(b"x"))
        await asyncio.wait_for(wait, SOON / 2)

    async def test_a_reader_that_reads_and_waits_misses_nothing(self, store: StreamStore) -> None:
        await store.create("a", NewStream(JSON))

        async def reader() -> list[bytes]:
            seen: list[bytes] = []
            position = 0
            while True:
                page = await store.read("a", position, limit=64)
                seen += page.data.split(b",") if page.data else []
                position = page.end
                if page.closed:
                    return seen
                if page.up_to_date:
                    await store.wait("a", position, timeout=SOON)

        readers = [asyncio.create_task(reader()) for _ in range(5)]
        for number in range(200):
            await store.append("a", messages(b"%d" % number, 1))
        await store.append("a", Append(close=True))
        for seen in await asyncio.wait_for(asyncio.gather(*readers), SOON):
            assert seen == [b"%d" % number for number in range(200)]

    async def test_a_wait_that_is_given_up_leaves_nothing(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT))
        wait = asyncio.create_task(store.wait("a", 0, timeout=SOON))
        await begun(store)
        wait.cancel()
        with suppress(asyncio.CancelledError):
            await wait
        assert not store._waiters  # type: ignore[attr-defined]
        assert (await store.append("a", text(b"x"))).new


class Expiring:
    """How a store lets streams expire; part of the contract."""

    async def test_idle_streams_expire(self, store: StreamStore, clock: Clock) -> None:
        await store.create("a", NewStream(TEXT, Expiry(ttl=100)))
        clock.now += 99
        assert (await store.head("a")).expiry == Expiry(ttl=100)
        clock.now += 20
        for ask in (store.head("a"), store.read("a", 0, limit=ALL), store.append("a", text(b"x"))):
            with pytest.raises(StreamNotFound):
                await ask

    async def test_appends_and_reads_prolong_a_life_and_heads_do_not(
        self, store: StreamStore, clock: Clock
    ) -> None:
        await store.create("a", NewStream(TEXT, Expiry(ttl=100)))
        for use in (
            lambda: store.append("a", text(b"x")),
            lambda: store.read("a", 0, limit=ALL),
            lambda: store.read("a", None, limit=ALL),
            lambda: store.append("a", Append(close=True)),
        ):
            clock.now += 90
            await use()
            # A store may note a read behind its answer, but before what it is asked for next.
            await store.create("b", NewStream(TEXT))
        for _ in range(2):
            clock.now += 90
            with suppress(StreamNotFound):
                await store.head("a")
        with pytest.raises(StreamNotFound):
            await store.head("a")

    async def test_a_moment_passes(self, store: StreamStore, clock: Clock) -> None:
        clock.now = 1_893_456_000.0 - 10  # 2030-01-01T00:00:00Z
        await store.create("a", NewStream(TEXT, Expiry(expires_at="2030-01-01T01:00:00+01:00")))
        clock.now += 9
        await store.append("a", text(b"x"))
        clock.now += 1
        with pytest.raises(StreamNotFound):
            await store.read("a", 0, limit=ALL)

    async def test_an_expired_stream_makes_room(self, store: StreamStore, clock: Clock) -> None:
        await store.create("a", NewStream(TEXT, Expiry(ttl=1), Batch(b"old", 3)))
        clock.now += 2
        created = await store.create("a", NewStream(JSON, batch=Batch(b'"new"', 1)))
        assert created.new
        assert await read_all(store, "a") == b'"new"'
        clock.now += 10**9
        assert await read_all(store, "a") == b'"new"'


class SharedByThreads:
    """One store, several event loops at once; part of the contract."""

    async def test_several_loops_append_read_and_wake_each_other(self, store: StreamStore) -> None:
        await store.create("a", NewStream(JSON))
        loops, each = 4, 25

        async def append_all(name: int) -> None:
            for number in range(each):
                await store.append("a", messages(b"%d" % (name * each + number), 1))

        async def read_until(total: int) -> int:
            position = 0
            while position < total:
                await store.wait("a", position, timeout=SOON)
                position = (await store.read("a", position, limit=ALL)).end
            return position

        failures: list[BaseException] = []

        def elsewhere(name: int) -> None:
            async def both() -> None:
                await asyncio.gather(append_all(name), read_until(loops * each))

            try:
                asyncio.run(both())
            except BaseException as error:  # noqa: BLE001 - told to the test's own thread
                failures.append(error)

        threads = [threading.Thread(target=elsewhere, args=(name,)) for name in range(loops)]
        for thread in threads:
            thread.start()
        assert await asyncio.wait_for(read_until(loops * each), SOON) == loops * each
        for thread in threads:
            await asyncio.to_thread(thread.join)
        assert not failures
        numbers = sorted(int(number) for number in (await read_all(store, "a")).split(b","))
        assert numbers == list(range(loops * each))

    async def test_loops_that_come_and_go(self, store: StreamStore) -> None:
        def once(number: int) -> int:
            return asyncio.run(store.append("a", messages(b"%d" % number, 1))).stream.tail

        await store.create("a", NewStream(JSON))
        assert [await asyncio.to_thread(once, number) for number in range(5)] == [1, 2, 3, 4, 5]

    async def test_a_loop_that_died_waiting_harms_nobody(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT))

        def give_up() -> None:
            async def begin() -> None:
                wait = asyncio.ensure_future(store.wait("a", 0, timeout=SOON))
                append = asyncio.ensure_future(store.append("a", text(b"x")))
                await asyncio.sleep(0)
                assert not wait.done()
                append.cancel()

            asyncio.run(begin())

        await asyncio.to_thread(give_up)
        await store.append("a", text(b"y"))
        assert (await read_all(store, "a")).replace(b"x", b"") == b"y"


class Closing:
    """The end of a store; part of the contract."""

    async def test_a_closed_store_says_so(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT))
        await store.aclose()
        await store.aclose()
        for ask in (
            store.head("a"),
            store.append("a", text(b"x")),
            store.create("b", NewStream(TEXT)),
            store.read("a", 0, limit=ALL),
            store.delete("a"),
        ):
            with pytest.raises(Unavailable):
                await ask

    async def test_closing_wakes_who_waits(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT))
        wait = asyncio.create_task(store.wait("a", 0, timeout=SOON))
        await begun(store)
        await store.aclose()
        await asyncio.wait_for(wait, SOON / 2)

    async def test_a_store_that_was_never_used_closes(self, store: StreamStore) -> None:
        await store.aclose()


class WholeContract(StoreContract, Waiting, Expiring, SharedByThreads, Closing):
    """All of it."""
