"""How the SQLite store keeps batches: long ones compressed, and within what a place in the file can name."""

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_chat.streams.protocol.errors import PayloadTooLarge, StreamNotFound, Unavailable
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.stores import tables
from durable_chat.streams.stores.base import Batch, NewStream
from durable_chat.streams.stores.file import _CATALOGUE, _FORKS, _STREAMS
from durable_chat.streams.stores.sqlite import SQLiteStore
from tests.streams.store_contract import ALL, JSON, TEXT, messages, read_all, text

LAST = 2**35 - 1
CHUNK = b'{"type":"TEXT_MESSAGE_CONTENT","messageId":"m-1","delta":"%d"}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "streams.sqlite3"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(path)
    yield store
    await store.aclose()


@pytest.fixture
async def other(path: Path) -> AsyncIterator[SQLiteStore]:
    """It has nothing in memory of what ``store`` was given."""
    other = SQLiteStore(path)
    yield other
    await other.aclose()


def kept(path: Path) -> list[int]:
    """The bytes that each batch takes in the file."""
    with closing(sqlite3.connect(path)) as connection:
        return [size for (size,) in connection.execute("SELECT length(data) FROM batch ORDER BY place")]


def alter(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


class TestLongBatches:
    async def test_chunks_take_a_fraction_of_their_length(
        self, store: SQLiteStore, other: SQLiteStore, path: Path
    ) -> None:
        batch = b",".join(CHUNK % number for number in range(50))
        await store.create("a", NewStream(JSON))
        await store.append("a", messages(batch, 50))
        assert kept(path)[0] < len(batch) / 4
        assert await read_all(other, "a") == batch

    async def test_what_has_nothing_to_save_is_kept_as_it_is(
        self, store: SQLiteStore, other: SQLiteStore, path: Path
    ) -> None:
        batches = [os.urandom(5_000), b"x" * 1_000]
        await store.create("a", NewStream("application/octet-stream"))
        for batch in batches:
            await store.append("a", text(batch)._replace(content_type="application/octet-stream"))
        assert kept(path) == [5_000, 1_000]
        assert await read_all(other, "a") == b"".join(batches)

    async def test_pages_and_sizes_count_what_was_appended(
        self, store: SQLiteStore, other: SQLiteStore
    ) -> None:
        await store.create("a", NewStream(TEXT))
        for letter in (b"a", b"b", b"c"):
            await store.append("a", text(letter * 3_000))
        page = await other.read("a", 0, limit=3_001)
        assert (page.data, list(page.ends)) == (b"a" * 3_000 + b"b" * 3_000, [3_000, 6_000])
        assert [listed.size for listed in await other.scan(limit=1)] == [9_000]

    async def test_a_fork_begins_within_one(self, store: SQLiteStore, other: SQLiteStore) -> None:
        batch = b",".join(CHUNK % number for number in range(50))
        await store.create("a", NewStream(JSON, batch=Batch(batch, 50)))
        await other.create("b", NewStream(JSON, fork=Fork("a", 0, 30)))
        assert await read_all(other, "b") == b",".join(CHUNK % number for number in range(30))

    @given(st.binary(max_size=3_000), st.integers(1, 400))
    def test_whatever_it_is_comes_back(self, piece: bytes, times: int) -> None:
        data = piece * times
        assert tables._unpacked(*tables._packed(data)) == data


class TestLimits:
    async def test_a_full_stream_takes_no_more_and_the_others_do(
        self, store: SQLiteStore, path: Path
    ) -> None:
        await store.create("a", NewStream(TEXT))
        await store.create("b", NewStream(TEXT, batch=Batch(b"of b", 4)))
        await store.aclose()
        alter(path, f"UPDATE stream SET tail = {LAST - 3} WHERE path = 'a'")
        again = SQLiteStore(path)
        assert (await again.append("a", text(b"xyz"))).stream.tail == LAST
        with pytest.raises(PayloadTooLarge, match="as long as"):
            await again.append("a", text(b"!"))
        assert (await again.read("a", LAST - 3, limit=ALL)).data == b"xyz"
        assert (await again.append("b", text(b"!"))).stream.tail == 5
        await again.delete("a")
        assert await read_all(again, "b") == b"of b!"
        await again.aclose()

    async def test_a_stream_too_many_is_refused_whole(self, store: SQLiteStore, path: Path) -> None:
        await store.create("a", NewStream(TEXT, batch=Batch(b"of a", 4)))
        await store.aclose()
        alter(path, f"UPDATE sqlite_sequence SET seq = {2**28 - 2} WHERE name = 'stream'")
        again = SQLiteStore(path)
        await again.create("last", NewStream(TEXT, batch=Batch(b"of the last", 11)))
        with pytest.raises(Unavailable):
            await again.create("more", NewStream(TEXT, batch=Batch(b"x", 1)))
        with pytest.raises(StreamNotFound):
            await again.head("more")
        await again.append("a", text(b"!"))
        assert (await read_all(again, "a"), await read_all(again, "last")) == (b"of a!", b"of the last")
        await again.aclose()


async def test_a_file_of_the_version_before_is_brought_up_to_date(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.create_function("expiry_ends", 3, lambda *_: None)
        connection.executescript(_STREAMS + _CATALOGUE + _FORKS)
        for number, tail in ((1, 9), (2, 2)):
            connection.execute(
                "INSERT INTO stream (id, path, tag, content_type, tail, closed, touched, size)"
                " VALUES (?, ?, 't', ?, ?, 0, 0, 9)",
                (number, f"s{number}", TEXT if number == 1 else JSON, tail),
            )
        connection.executemany(
            "INSERT INTO batch VALUES (?, ?, ?, ?)",
            [(1, 3, 0, b"one"), (1, 9, 3, b"twothr"), (2, 1, 0, b"{}"), (2, 2, 1, CHUNK)],
        )
        connection.execute("PRAGMA user_version=3")
    store = SQLiteStore(path)
    assert [listed.size for listed in await store.scan(limit=10)] == [9, 9]
    assert (await read_all(store, "s1"), (await store.read("s1", 3, limit=ALL)).data) == (
        b"onetwothr",
        b"twothr",
    )
    assert (await store.append("s2", messages(b"1", 1))).stream.tail == 3
    assert (await store.read("s2", 0, limit=ALL)).data == b"{}," + CHUNK + b",1"
    await store.aclose()
