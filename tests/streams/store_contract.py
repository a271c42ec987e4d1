"""What every store does: the same cases for each (see test_stores.py)."""

import asyncio
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
    return append._replace(producer=ProducerStamp(producer, epoch, seq))


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
