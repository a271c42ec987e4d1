"""What is kept in memory of late: never another answer than the whole stream gives, and never too much."""

from collections.abc import AsyncIterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_chat.streams.protocol.errors import StreamNotFound, Unavailable
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.stores import rules, tables
from durable_chat.streams.stores.base import Batch, NewStream, Page, Stream
from durable_chat.streams.stores.recent import Windows
from durable_chat.streams.stores.sqlite import SQLiteStore
from tests.streams.store_contract import ALL, JSON, TEXT, messages, read_all, text

PLENTY = 1 << 30


def stream(tail: int) -> Stream:
    return Stream("tag", TEXT, Expiry(), tail, closed=False, closed_by=None, last_seq=None, touched=0.0)


def page_of(batches: Sequence[bytes], first: int, last: int, *, limit: int = PLENTY) -> Page:
    """What a store answers for some of a stream that has been written so far to the last of them."""
    at = [0, *accumulate(map(len, batches))]
    following = ((start, end, data) for (start, end), data in zip(pairwise(at), batches, strict=True))
    rest = list(following)[first:last]
    return rules.page(stream(at[last]), at[first], rest, limit=limit)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[bytes], list[tuple[int, int]]]:
    """A stream's batches, and the ranges of them that are noted, in any order."""
    batches = draw(st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=8))
    bounds = st.integers(0, len(batches))
    noted = draw(st.lists(st.tuples(bounds, bounds).map(sorted).map(tuple), max_size=6))
    return batches, noted


@given(histories(), st.sampled_from([0, 3_000, 20_000, PLENTY]), st.integers(1, 9))
def test_what_is_remembered_is_what_was_written(
    history: tuple[list[bytes], list[tuple[int, int]]], most: int, limit: int
) -> None:
    batches, noted = history
    windows = Windows(most)
    for first, last in noted:
        windows.note([("a", page_of(batches, first, last))])
    for last in range(len(batches) + 1):
        for first in range(last + 1):
            whole = page_of(batches, first, last, limit=limit)
            found = windows.page("a", whole.stream, whole.start, limit=limit)
            assert found in (None, whole)
    assert windows.size <= most


def test_appends_are_remembered_one_after_the_other() -> None:
    windows = Windows(PLENTY)
    batches = [b"a", b"bc", b"def"]
    for number in range(len(batches)):
        windows.note([("a", page_of(batches, number, number + 1))])
    whole = page_of(batches, 0, 3)
    assert windows.page("a", whole.stream, 0, limit=ALL) == whole
    assert windows.page("a", whole.stream, 2, limit=ALL) is None  # no batch ends there


def test_another_stream_of_that_name_is_not_mistaken_for_it() -> None:
    windows = Windows(PLENTY)
    windows.note([("a", Page(stream(3), 0, [3], [b"old"]))])
    new = rules.create(NewStream(TEXT, batch=Batch(b"new", 3)), now=0.0)
    assert windows.page("a", new, 0, limit=ALL) is None
    windows.note([("a", Page.of(new, Batch(b"new", 3)))])
    found = windows.page("a", new, 0, limit=ALL)
    assert found is not None
    assert found.data == b"new"


def test_what_is_deleted_is_forgotten() -> None:
    windows = Windows(PLENTY)
    windows.note([("a", page_of([b"secret"], 0, 1)), ("a", None)])
    assert "a" not in windows
    assert windows.size == 0


def test_the_streams_used_last_stay() -> None:
    windows = Windows(100_000)
    page = page_of([b"x" * 9_000], 0, 1)
    for number in range(5):
        windows.note([(str(number), page)])
        windows.page("0", page.stream, 0, limit=ALL)
    for number in range(5, 15):
        windows.note([(str(number), page)])
        windows.page("0", page.stream, 0, limit=ALL)
    assert "0" in windows
    assert "1" not in windows
    assert windows.size <= 100_000


def test_of_a_long_stream_the_end_stays() -> None:
    windows = Windows(80_000)
    batches = [b"x" * 1_000 for _ in range(1000)]
    for number in range(len(batches)):
        windows.note([("a", page_of(batches[: number + 1], number, number + 1))])
    whole = stream(1_000_000)
    assert windows.page("a", whole, 999_000, limit=ALL) is not None
    assert windows.page("a", whole, 0, limit=ALL) is None
    assert windows.size <= 80_000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "streams.sqlite3")
    yield store
    await store.aclose()


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    other = SQLiteStore(tmp_path / "streams.sqlite3")
    yield other
    await other.aclose()


async def warmed(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that was read once; from now on its batches cannot be read from the file."""
    await store.create("a", NewStream(JSON, batch=Batch(b"1,2", 2)))
    await store.append("a", messages(b"3", 1))
    await store.read("a", None, limit=ALL)

    def unreadable(*_: object, **__: object) -> Page:
        raise Unavailable

    monkeypatch.setattr(tables, "page", unreadable)


async def test_what_was_just_appended_is_read_without_the_file(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await warmed(store, monkeypatch)
    await store.append("a", messages(b"4,5", 2, close=True))
    page = await store.read("a", 2, limit=ALL)
    assert (page.data, page.start, page.end, page.closed) == (b"3,4,5", 2, 5, True)
    assert (await store.head("a")).closed


async def test_what_others_append_is_not_missed(
    store: SQLiteStore, other: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as unreadable:
        await warmed(store, unreadable)
    for number in range(4, 20):
        await other.append("a", messages(b"%d" % number, 1))
        page = await store.read("a", number - 1, limit=ALL)
        assert (page.data, page.up_to_date) == (b"%d" % number, True)
    assert await read_all(store, "a") == await read_all(other, "a")


async def test_what_others_delete_is_gone(
    store: SQLiteStore, other: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as unreadable:
        await warmed(store, unreadable)
    await other.delete("a")
    with pytest.raises(StreamNotFound):
        await store.read("a", 0, limit=ALL)
    await other.create("a", NewStream(TEXT, batch=Batch(b"new", 3)))
    assert (await store.read("a", 0, limit=ALL)).data == b"new"


async def test_what_expired_is_gone(tmp_path: Path) -> None:
    now = 0.0
    store = SQLiteStore(tmp_path / "streams.sqlite3", clock=lambda: now)
    await store.create("a", NewStream(TEXT, Expiry(ttl=100), Batch(b"one", 3)))
    await store.append("a", text(b"two"))
    assert await read_all(store, "a") == b"onetwo"
    now = 200.0
    with pytest.raises(StreamNotFound):
        await store.read("a", 0, limit=ALL)
    await store.aclose()


async def test_what_others_delete_is_forgotten(store: SQLiteStore, other: SQLiteStore) -> None:
    await store.create("a", NewStream(TEXT, batch=Batch(b"secret", 6)))
    await other.delete("a")
    with pytest.raises(StreamNotFound):
        await store.head("a")
    assert store._windows.size == 0
