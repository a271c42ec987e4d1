"""How every store forks streams, and what is left of their sources: the same cases for each (section 4.2)."""

import asyncio

import pytest

from durable_chat.streams.protocol.errors import (
    BadRequest,
    ContentTypeMismatch,
    InvalidOffset,
    SourceGone,
    StreamError,
    StreamExists,
    StreamGone,
    StreamNotFound,
)
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.stores.base import Append, Batch, NewStream, StreamStore
from tests.streams.store_contract import (
    ALL,
    JSON,
    SOON,
    TEXT,
    Clock,
    begun,
    by,
    messages,
    pages,
    read_all,
    text,
)


class Forking:
    """Subclasses give the fixtures ``clock`` and ``store``."""

    async def test_a_fork_begins_as_its_source_and_goes_its_own_way(self, store: StreamStore) -> None:
        source = await store.create("a", NewStream(TEXT, batch=Batch(b"one ", 4)))
        await store.append("a", text(b"two "))
        created = await store.create("b", NewStream("", fork=Fork("a", 4)))
        assert created.new
        assert (created.stream.tail, created.stream.content_type, created.stream.closed) == (4, TEXT, False)
        assert created.stream.tag != source.stream.tag
        assert (await store.append("b", text(b"three"))).stream.tail == 9
        await store.append("a", text(b"four"))
        assert await read_all(store, "a") == b"one two four"
        assert await read_all(store, "b") == b"one three"
        assert (await store.head("a")).forks == 1
        assert await store.head("b") == (await store.read("b", 4, limit=ALL)).stream

    async def test_a_fork_is_taken_at_the_tail_unless_told_otherwise(self, store: StreamStore) -> None:
        await store.create("a", NewStream(JSON, batch=Batch(b"1,2", 2)))
        await store.create("b", NewStream(JSON, batch=Batch(b"3", 1), fork=Fork("a")))
        page = await store.read("b", 0, limit=ALL)
        assert (page.data, page.end, page.up_to_date) == (b"1,2,3", 3, True)
        await store.create("c", NewStream(JSON, fork=Fork("a", 0)))
        assert await read_all(store, "c") == b""
        assert (await store.append("c", messages(b"9", 1))).stream.tail == 1

    async def test_a_fork_has_the_offsets_of_its_source(self, store: StreamStore) -> None:
        await fork_of_four(store)
        for position, data in ((0, b"abcdEFGH"), (2, b"cdEFGH"), (4, b"EFGH"), (6, b"GH"), (8, b"")):
            page = await store.read("b", position, limit=ALL)
            assert (page.data, page.start, page.end, page.up_to_date) == (data, position, 8, True)
        assert (await store.read("b", None, limit=ALL)).start == 8
        for position in (1, 3, 5, 7, 9):
            with pytest.raises(InvalidOffset):
                await store.read("b", position, limit=ALL)
        assert [page.data for page in await pages(store, "b", limit=1)] == [b"ab", b"cd", b"EF", b"GH"]
        assert [page.data for page in await pages(store, "b", limit=3)] == [b"abcd", b"EFGH"]
        assert [page.end for page in await pages(store, "b", limit=5)] == [6, 8]

    @pytest.mark.parametrize(
        ("position", "sub_offset", "whole"),
        [(0, 2, b"1,2"), (0, 3, b"1,2,3"), (3, 1, b"1,2,3,4"), (5, 0, b"1,2,3,4,5"), (None, 0, b"1,2,3,4,5")],
    )
    async def test_a_fork_may_cut_a_batch(
        self, store: StreamStore, position: int | None, sub_offset: int, whole: bytes
    ) -> None:
        await store.create("a", NewStream(JSON, batch=Batch(b"1,2,3", 3)))
        await store.append("a", messages(b"4,5", 2))
        created = await store.create("b", NewStream(JSON, fork=Fork("a", position, sub_offset)))
        assert created.stream.tail == whole.count(b",") + 1
        assert b",".join(page.data for page in await pages(store, "b", limit=1)) == whole
        await store.append("b", messages(b'"own"', 1))
        assert (await store.read("b", 0, limit=ALL)).data == whole + b',"own"'
        assert (await store.read("b", created.stream.tail, limit=ALL)).data == b'"own"'

    async def test_a_cut_does_not_show_what_follows_it(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT, batch=Batch(b"hello", 5)))
        await store.create("b", NewStream(TEXT, batch=Batch(b"XY", 2), fork=Fork("a", 0, 3)))
        assert await read_all(store, "b") == b"helXY"
        await store.create("c", NewStream(TEXT, fork=Fork("b", 0, 1)))
        assert await read_all(store, "c") == b"h"
        await store.append("a", text(b" world"))
        assert [await read_all(store, path) for path in "bc"] == [b"helXY", b"h"]

    @pytest.mark.parametrize(
        ("new", "error"),
        [
            (NewStream(TEXT, fork=Fork("nowhere")), StreamNotFound),
            (NewStream(TEXT, fork=Fork("b")), StreamNotFound),
            (NewStream(JSON, fork=Fork("a")), ContentTypeMismatch),
            (NewStream(TEXT, fork=Fork("a", 99)), InvalidOffset),
            (NewStream(TEXT, fork=Fork("a", 1)), InvalidOffset),
            (NewStream(TEXT, fork=Fork("a", 0, 3)), BadRequest),
            (NewStream(TEXT, fork=Fork("a", None, 1)), BadRequest),
        ],
    )
    async def test_what_cannot_be_forked_leaves_nothing(
        self, store: StreamStore, new: NewStream, error: type[StreamError]
    ) -> None:
        await store.create("a", NewStream(TEXT, batch=Batch(b"ab", 2)))
        await store.append("a", text(b"cd"))
        with pytest.raises(error):
            await store.create("b", new)
        assert (await store.head("a")).forks == 0
        await store.delete("a")
        for path in ("a", "b"):
            with pytest.raises(StreamNotFound):
                await store.head(path)

    async def test_a_fork_of_a_closed_stream_is_open(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT, batch=Batch(b"all", 3), closed=True))
        await store.create("b", NewStream(TEXT, fork=Fork("a")))
        assert [page.closed for page in await pages(store, "b", limit=ALL)] == [False]
        await store.append("b", text(b"!", close=True))
        assert [page.closed for page in await pages(store, "b", limit=1)] == [False, True]
        assert await read_all(store, "b") == b"all!"
        assert (await store.create("c", NewStream(TEXT, fork=Fork("a"), closed=True))).stream.closed

    async def test_a_fork_knows_no_writers(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT))
        await store.append("a", by("p", 5, 0, text(b"x", stream_seq="z")))
        await store.create("b", NewStream(TEXT, fork=Fork("a")))
        assert (await store.append("b", by("p", 0, 0, text(b"y", stream_seq="a")))).new
        assert await read_all(store, "b") == b"xy"
        assert not (await store.append("a", by("p", 5, 0, text(b"x")))).new

    async def test_the_same_fork_may_be_asked_for_again(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT, Expiry(ttl=60), Batch(b"abc", 3)))
        asked = NewStream(TEXT, fork=Fork("a", 0, 2))
        assert (await store.create("b", asked)).new
        tail = NewStream("", fork=Fork("a"))
        assert (await store.create("c", tail)).new
        await store.append("a", text(b"more"))
        for again in (asked, NewStream("", Expiry(ttl=60), Batch(b"other", 5), fork=Fork("a", 0, 2))):
            assert not (await store.create("b", again)).new
        assert not (await store.create("c", tail)).new
        assert (await store.head("a")).forks == 2
        await store.delete("a")
        assert not (await store.create("b", asked)).new
        assert await read_all(store, "b") == b"ab"
        for other in (
            NewStream(TEXT, Expiry(ttl=60)),
            NewStream(TEXT, fork=Fork("a", 0, 1)),
            NewStream(TEXT, fork=Fork("a", 3)),
            NewStream(TEXT, fork=Fork("c", 0, 2)),
            NewStream(TEXT, fork=Fork("nowhere", 0, 2)),
            NewStream(TEXT, Expiry(ttl=61), fork=Fork("a", 0, 2)),
            NewStream(TEXT, fork=Fork("a", 0, 2), closed=True),
        ):
            with pytest.raises(StreamExists):
                await store.create("b", other)

    async def test_what_has_forks_stays_for_them_when_it_is_deleted(self, store: StreamStore) -> None:
        await fork_of_four(store)
        await store.delete("a")
        for ask in (
            store.head("a"),
            store.read("a", 0, limit=ALL),
            store.append("a", text(b"x")),
            store.append("a", Append(close=True)),
            store.delete("a"),
        ):
            with pytest.raises(StreamGone):
                await ask
        with pytest.raises(StreamExists):
            await store.create("a", NewStream(TEXT))
        with pytest.raises(SourceGone):
            await store.create("c", NewStream(TEXT, fork=Fork("a")))
        assert await read_all(store, "b") == b"abcdEFGH"
        await store.append("b", text(b"ij"))
        await store.delete("b")
        for path in ("a", "b"):
            with pytest.raises(StreamNotFound):
                await store.head(path)
        assert (await store.create("a", NewStream(JSON))).new
        assert await read_all(store, "a") == b""

    async def test_the_end_of_a_fork_is_not_its_sources(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT, batch=Batch(b"ab", 2)))
        for path in ("b", "c"):
            await store.create(path, NewStream(TEXT, fork=Fork("a")))
        await store.delete("b")
        assert (await store.head("a")).forks == 1
        await store.delete("c")
        assert await read_all(store, "a") == b"ab"
        await store.delete("a")
        with pytest.raises(StreamNotFound):
            await store.head("a")

    async def test_a_chain(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT, batch=Batch(b"A", 1)))
        for path, source, data in (("b", "a", b"B"), ("c", "b", b"C"), ("d", "c", b"D")):
            await store.create(path, NewStream(TEXT, batch=Batch(data, 1), fork=Fork(source)))
            await store.append(source, text(b"-"))
        assert [await read_all(store, path) for path in "abcd"] == [b"A-", b"AB-", b"ABC-", b"ABCD"]
        assert [page.data for page in await pages(store, "d", limit=1)] == [b"A", b"B", b"C", b"D"]
        assert (await store.read("d", 1, limit=2)).data == b"BC"
        # One that leaves its source where that had not begun yet.
        await store.create("e", NewStream(TEXT, batch=Batch(b"E", 1), fork=Fork("d", 1)))
        assert await read_all(store, "e") == b"AE"

    async def test_a_chain_ends_from_its_end(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT, batch=Batch(b"A", 1)))
        for path, source in (("b", "a"), ("c", "b"), ("d", "c")):
            await store.create(path, NewStream(TEXT, batch=Batch(b"x", 1), fork=Fork(source)))
        for path in ("b", "c"):
            await store.delete(path)
        assert await read_all(store, "d") == b"Axxx"
        for path in ("b", "c"):
            with pytest.raises(StreamGone):
                await store.head(path)
        await store.delete("d")
        for path in ("b", "c", "d"):
            with pytest.raises(StreamNotFound):
                await store.head(path)
        assert (await store.head("a")).forks == 0
        assert await read_all(store, "a") == b"A"

    async def test_a_source_that_expires_stays_for_its_forks(self, store: StreamStore, clock: Clock) -> None:
        await store.create("a", NewStream(TEXT, Expiry(ttl=100), Batch(b"ab", 2)))
        own = await store.create("b", NewStream(TEXT, Expiry(ttl=1000), fork=Fork("a")))
        same = await store.create("c", NewStream(TEXT, fork=Fork("a")))
        assert (own.stream.expiry, same.stream.expiry) == (Expiry(ttl=1000), Expiry(ttl=100))
        clock.now += 200
        for ask in (store.head("a"), store.read("a", 0, limit=ALL), store.append("a", text(b"x"))):
            with pytest.raises(StreamGone):
                await ask
        with pytest.raises(SourceGone):
            await store.create("d", NewStream(TEXT, fork=Fork("a")))
        with pytest.raises(StreamExists):
            await store.create("a", NewStream(TEXT))
        with pytest.raises(StreamNotFound):
            await store.head("c")
        assert await read_all(store, "b") == b"ab"
        with pytest.raises(StreamNotFound):
            await store.append("c", text(b"x"))
        await store.delete("b")
        with pytest.raises(StreamNotFound):
            await store.head("a")
        assert (await store.create("a", NewStream(JSON))).new

    async def test_only_its_own_appends_wake_who_waits_at_a_fork(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT, batch=Batch(b"ab", 2)))
        await store.create("b", NewStream(TEXT, fork=Fork("a")))
        await store.wait("b", 0, timeout=SOON)  # what is inherited is there
        wait = asyncio.create_task(store.wait("b", 2, timeout=SOON))
        await begun(store)
        await store.append("a", text(b"cd"))
        await store.delete("a")
        assert not wait.done()
        await store.append("b", text(b"x"))
        await asyncio.wait_for(wait, SOON / 2)

    async def test_who_waits_at_a_source_is_told_of_its_end(self, store: StreamStore) -> None:
        await store.create("a", NewStream(TEXT, batch=Batch(b"ab", 2)))
        await store.create("b", NewStream(TEXT, fork=Fork("a")))
        wait = asyncio.create_task(store.wait("a", 2, timeout=SOON))
        await begun(store)
        await store.delete("a")
        await asyncio.wait_for(wait, SOON / 2)
        await store.wait("a", 2, timeout=SOON)


async def fork_of_four(store: StreamStore) -> None:
    """ "b": two batches of "a" and two of its own, two bytes each; "a" has gone on."""
    await store.create("a", NewStream(TEXT, batch=Batch(b"ab", 2)))
    for data in (b"cd", b"ef"):
        await store.append("a", text(data))
    await store.create("b", NewStream(TEXT, fork=Fork("a", 4)))
    for data in (b"EF", b"GH"):
        await store.append("b", text(data))
