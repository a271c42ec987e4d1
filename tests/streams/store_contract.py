"""What every store does: the same cases for each (see test_stores.py)."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from durable_chat.streams.protocol.errors import (
    ContentTypeMismatch,
    InvalidOffset,
    ProducerGap,
    SequenceRegression,
    StaleEpoch,
    StreamClosed,
    StreamExists,
    StreamNotFound,
    Unavailable,
)
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.producers import ProducerStamp, ProducerState
from durable_chat.streams.stores.base import Append, Batch, NewStream, Page, StreamStore

TEXT = "text/plain"
JSON = "application/json"
ALL = 1 << 30
SOON = 30.0  # long enough that only a store which never answers fails


class Clock:
    """A time that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def text(data: bytes, **fields: Any) -> Append:
    return Append(Batch(data, len(data)), content_type=TEXT, **fields)


def messages(data: bytes, length: int, **fields: Any) -> Append:
    return Append(Batch(data, length), content_type=JSON, **fields)


def by(producer: str, epoch: int, seq: int, append: Append) -> Append:
    return replace(append, producer=ProducerStamp(producer, epoch, seq))


async def read_all(store: StreamStore, path: str, *, limit: int = ALL) -> bytes:
    return b"".join([page.data for page in await pages(store, path, limit=limit)])


async def pages(store: StreamStore, path: str, *, limit: int) -> list[Page]:
    found = [await store.read(path, 0, limit=limit)]
    while not found[-1].up_to_date:
        found.append(await store.read(path, found[-1].end, limit=limit))
    return found


async def begun(store: StreamStore) -> None:
    """By the time that this returns the tasks created before it wait at "a"."""
    await asyncio.sleep(0)
    await store.head("a")


class StoreContract:
    """Subclasses give the fixtures ``clock`` and ``store``."""

    async def test_a_new_stream_is_empty_and_open(self, store: StreamStore) -> None:
        created = await store.create("a", NewStream(TEXT))
        assert created.new
        assert (created.stream.tail, created.stream.closed) == (0, False)
        assert await store.head("a") == created.stream
        page = await store.read("a", 0, limit=ALL)
        assert (page.data, page.start, page.end, page.up_to_date, page.closed) == (b"", 0, 0, True, False)

    async def test_create_twice_finds_the_first(self, store: StreamStore) -> None:
        first = await store.create("a", NewStream(TEXT, Expiry(ttl=60), Batch(b"abc", 3)))
        again = await store.create("a", NewStream("TEXT/Plain", Expiry(ttl=60), Batch(b"other", 5)))
        assert not again.new
        assert again.stream == first.stream
        assert await read_all(store, "a") == b"abc"
        for other in (NewStream(JSON), NewStream(TEXT), NewStream(TEXT, Expiry(ttl=60), closed=True)):
            with pytest.raises(StreamExists):
                await store.create("a", other)

    async def test_created_closed_with_its_whole_content(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT, batch=Batch(b"all", 3), closed=True))
        page = await store.read("a", 0, limit=ALL)
        assert (page.data, page.closed) == (b"all", True)
        with pytest.raises(StreamClosed):
            await store.append("a", text(b"more"))

    async def test_what_is_appended_is_read_in_order(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT, batch=Batch(b"one ", 4)))
        assert (await store.append("a", text(b"two "))).stream.tail == 8
        assert (await store.append("a", text(b"three"))).stream.tail == 13
        assert await read_all(store, "a") == b"one two three"
        page = await store.read("a", 4, limit=ALL)
        assert (page.data, page.start, page.end) == (b"two three", 4, 13)
        assert (await store.read("a", None, limit=ALL)).data == b""
        assert (await store.read("a", None, limit=ALL)).start == 13

    async def test_json_positions_count_messages(self, store: StreamStore) -> None:
        await store.create("a", NewStream(JSON))
        await store.append("a", messages(b'{"a":1},{"b":2}', 2))
        await store.append("a", messages(b"3", 1))
        page = await store.read("a", 0, limit=ALL)
        assert (page.data, page.end) == (b'{"a":1},{"b":2},3', 3)
        assert (await store.read("a", 2, limit=ALL)).data == b"3"

    async def test_any_bytes_come_back(self, store: StreamStore) -> None:
        every = bytes(range(256)) * 1000
        await store.create("a", NewStream("application/octet-stream"))
        await store.append("a", Append(Batch(every, len(every)), content_type="application/octet-stream"))
        assert await read_all(store, "a") == every

    async def test_a_page_is_bounded_but_never_empty_before_the_tail(self, store: StreamStore) -> None:
        await store.create("a", NewStream(JSON))
        for number in range(20):
            await store.append("a", messages(b'"%03d"' % number, 1))
        found = await pages(store, "a", limit=12)
        assert [page.data.count(b",") + 1 for page in found] == [3, 3, 3, 3, 3, 3, 2]
        assert [page.up_to_date for page in found] == [False] * 6 + [True]
        assert b",".join(page.data for page in found) == b",".join(b'"%03d"' % n for n in range(20))
        assert len(await pages(store, "a", limit=1)) == 20

    async def test_only_a_page_that_reaches_the_end_says_closed(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT, batch=Batch(b"one", 3)))
        await store.append("a", text(b"two", close=True))
        assert [page.closed for page in await pages(store, "a", limit=1)] == [False, True]

    @pytest.mark.parametrize("position", [1, 3, 5, 99, 2**53 - 1])
    async def test_a_position_that_was_never_issued_is_refused(
        self, store: StreamStore, position: int
    ) -> None:
        await store.create("a", NewStream(TEXT, batch=Batch(b"ab", 2)))
        await store.append("a", text(b"cd"))
        with pytest.raises(InvalidOffset):
            await store.read("a", position, limit=ALL)
        assert (await store.read("a", 2, limit=ALL)).data == b"cd"
        assert (await store.read("a", 4, limit=ALL)).data == b""

    async def test_streams_are_apart(self, store: StreamStore) -> None:
        for path in ("a", "a/b", "A", "a b", "ä", "%61"):
            await store.create(path, NewStream(TEXT))
            await store.append(path, text(path.encode()))
        for path in ("a", "a/b", "A", "a b", "ä", "%61"):
            assert await read_all(store, path) == path.encode()

    async def test_nothing_is_found_where_nothing_is(self, store: StreamStore) -> None:
        for ask in (
            store.head("a"),
            store.read("a", 0, limit=ALL),
            store.append("a", text(b"x")),
            store.append("a", Append(close=True)),
            store.delete("a"),
        ):
            with pytest.raises(StreamNotFound):
                await ask

    async def test_deleted_is_gone_and_a_successor_starts_afresh(self, store: StreamStore) -> None:
        old = await store.create("a", NewStream(TEXT, batch=Batch(b"old", 3)))
        await store.append("a", by("p", 5, 0, text(b"older", stream_seq="z")))
        await store.delete("a")
        with pytest.raises(StreamNotFound):
            await store.head("a")
        new = await store.create("a", NewStream(JSON))
        assert new.new
        assert new.stream.tag != old.stream.tag
        assert (await store.append("a", by("p", 0, 0, messages(b"1", 1, stream_seq="a")))).new
        assert await read_all(store, "a") == b"1"

    async def test_close(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT))
        closed = await store.append("a", text(b"end", close=True))
        assert closed.new
        assert closed.stream.closed
        assert (await store.head("a")).closed
        assert not (await store.append("a", Append(close=True))).new
        with pytest.raises(StreamClosed) as refusal:
            await store.append("a", text(b"more"))
        assert refusal.value.headers["stream-next-offset"].endswith("3")
        assert await read_all(store, "a") == b"end"

    async def test_stream_seq_only_rises(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT))
        await store.append("a", text(b"1", stream_seq="09"))
        await store.append("a", text(b"2"))
        for seq in ("09", "08", "", "0"):
            with pytest.raises(SequenceRegression):
                await store.append("a", text(b"x", stream_seq=seq))
        await store.append("a", text(b"3", stream_seq="10"))
        assert await read_all(store, "a") == b"123"

    async def test_a_refused_append_leaves_nothing(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT))
        await store.append("a", by("p", 1, 0, text(b"x", stream_seq="m")))
        before = await store.head("a")
        for refused, error in (
            (by("p", 1, 1, messages(b"1", 1)), ContentTypeMismatch),
            (by("p", 1, 2, text(b"y")), ProducerGap),
            (by("p", 0, 1, text(b"y")), StaleEpoch),
            (by("p", 1, 1, text(b"y", stream_seq="a")), SequenceRegression),
        ):
            with pytest.raises(error):
                await store.append("a", refused)
        assert await store.head("a") == before
        assert (await store.append("a", by("p", 1, 1, text(b"y", stream_seq="n")))).new
        assert await read_all(store, "a") == b"xy"

    async def test_a_producers_batches_are_taken_once(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT))
        for _ in range(2):
            for seq in range(3):
                appended = await store.append("a", by("p", 0, seq, text(b"%d" % seq)))
        assert not appended.new
        assert appended.stream.tail == 3
        again = await store.append("a", by("p", 0, 0, text(b"!")))
        assert (again.new, again.producer) == (False, ProducerState(0, 2))
        assert await read_all(store, "a") == b"012"

    async def test_producers_are_apart(self, store: StreamStore) -> None:
        for path in ("a", "b"):
            await store.create(path, NewStream(TEXT))
            for producer in ("p", "q"):
                assert (await store.append(path, by(producer, 0, 0, text(b"x")))).new

    async def test_a_new_epoch_fences_the_old_one(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT))
        await store.append("a", by("p", 0, 0, text(b"a")))
        taken = await store.append("a", by("p", 4, 0, text(b"b")))
        assert taken.producer == ProducerState(4, 0)
        with pytest.raises(StaleEpoch) as fence:
            await store.append("a", by("p", 0, 1, text(b"c")))
        assert fence.value.epoch == 4
        assert await read_all(store, "a") == b"ab"

    async def test_the_append_that_closed_may_be_repeated(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT))
        closing = by("p", 0, 0, text(b"end", close=True))
        assert (await store.append("a", closing)).new
        again = await store.append("a", closing)
        assert (again.new, again.stream.closed, again.producer) == (False, True, ProducerState(0, 0))
        with pytest.raises(StreamClosed):
            await store.append("a", by("p", 0, 1, text(b"more")))
        with pytest.raises(StreamClosed):
            await store.append("a", by("q", 0, 0, text(b"more")))
        assert await read_all(store, "a") == b"end"

    async def test_a_producer_may_merely_close(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT))
        closing = by("p", 0, 0, Append(close=True))
        assert (await store.append("a", closing)).new
        assert not (await store.append("a", closing)).new
        assert (await store.head("a")).closed_by == closing.producer

    async def test_appends_at_once_are_all_kept_one_after_the_other(self, store: StreamStore) -> None:
        await store.create("a", NewStream(JSON))
        appends = [store.append("a", messages(b"%d" % number, 1)) for number in range(300)]
        tails = [appended.stream.tail for appended in await asyncio.gather(*appends)]
        assert sorted(tails) == list(range(1, 301))
        kept = [int(number) for number in (await read_all(store, "a")).split(b",")]
        assert sorted(kept) == list(range(300))
        assert all(kept[tail - 1] == number for number, tail in enumerate(tails))

    async def test_one_producers_batches_at_once_are_each_taken_once(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT))
        batch = by("p", 0, 0, text(b"x"))
        answers = await asyncio.gather(*(store.append("a", batch) for _ in range(50)))
        assert sum(answer.new for answer in answers) == 1
        assert await read_all(store, "a") == b"x"

    async def test_a_refusal_does_not_touch_its_neighbours(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT))
        answers = await asyncio.gather(
            *(store.append("a", text(b"x") if number % 3 else messages(b"1", 1)) for number in range(60)),
            return_exceptions=True,
        )
        refused = [answer for answer in answers if isinstance(answer, BaseException)]
        assert len(refused) == 20
        assert all(isinstance(answer, ContentTypeMismatch) for answer in refused)
        assert await read_all(store, "a") == b"x" * 40

    async def test_an_append_is_there_for_whoever_reads_next(self, store: StreamStore) -> None:
        await store.create("a", NewStream(JSON))
        for number in range(50):
            appended = await store.append("a", messages(b"%d" % number, 1))
            page = await store.read("a", number, limit=ALL)
            assert (page.data, page.end) == (b"%d" % number, appended.stream.tail)


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
