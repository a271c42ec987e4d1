"""What a PostgreSQL store does by what it remembers of its rows: fewer questions, the same answers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO

import psycopg
import pytest
from psycopg.pq.abc import PGconn

from durable_chat.streams.embedded import postgres_memory
from durable_chat.streams.embedded.postgres import PostgresStore
from durable_chat.streams.embedded.postgres_connection import Connection, Database
from durable_chat.streams.protocol.errors import (
    ProducerGap,
    SequenceRegression,
    StaleEpoch,
    StreamClosed,
    StreamNotFound,
    Unavailable,
)
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.stores.base import Append, NewStream
from tests.streams.postgres import Schema
from tests.streams.postgres_sessions import blocked
from tests.streams.store_contract import JSON, TEXT, Clock, by, messages, read_all, text


@pytest.fixture
async def other(schema: Schema) -> AsyncIterator[PostgresStore]:
    """Another user of the same tables. To PostgreSQL, another process is other connections, as this is."""
    other = PostgresStore(schema.parameters)
    yield other
    await other.aclose()


class Wire:
    """What goes over the connection that writes, as libpq tells it."""

    def __init__(self, written: IO[str], read: IO[str]) -> None:
        self._written = written
        self._read = read
        self._pgconn: PGconn | None = None

    def watch(self, pgconn: PGconn) -> None:
        self._pgconn = pgconn
        pgconn.trace(self._written.fileno())

    def trips(self) -> int:
        """How often an answer was waited for, since this was last asked."""
        assert self._pgconn is not None
        self._pgconn.untrace()  # which writes what is left
        count = self._read.read().count("ReadyForQuery")
        self._pgconn.trace(self._written.fileno())
        return count


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Wire]:
    """Of the store that writes first."""
    connect = Database.connect
    writers: list[Connection] = []

    def watched(database: Database, role: str) -> Connection:
        connection = connect(database, role)
        if role == "writer":
            writers.append(connection)
            if len(writers) == 1:
                wire.watch(connection.pgconn)
        return connection

    monkeypatch.setattr(Database, "connect", watched)
    with (tmp_path / "wire").open("w") as written, (tmp_path / "wire").open() as read:
        wire = Wire(written, read)
        yield wire


@pytest.fixture(params=[False, True], ids=["direct", "pooled"])
async def store(schema: Schema, wire: Wire, request: pytest.FixtureRequest) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(schema.parameters, pooled=request.param)
    yield store
    await store.aclose()


class TestRoundTrips:
    async def test_one_to_append_to_what_this_process_created_or_wrote_last(
        self, store: PostgresStore, wire: Wire
    ) -> None:
        await store.create("a", NewStream(TEXT))
        assert wire.trips() == 2
        await store.append("a", text(b"x"))
        assert wire.trips() == 1
        for _ in range(5):  # while psycopg prepares the statement, which asks once more
            await store.append("a", text(b"x"))
        wire.trips()
        await store.append("a", text(b"x"))
        assert wire.trips() == 1

    async def test_one_for_a_producer_that_is_known_as_well(self, store: PostgresStore, wire: Wire) -> None:
        await store.create("a", NewStream(TEXT))
        wire.trips()
        for name in ("p", "q"):
            await store.append("a", by(name, 0, 0, text(b"x")))
            assert wire.trips() == 2
        for name in ("p", "q"):
            await store.append("a", by(name, 0, 1, text(b"x")))
            assert wire.trips() == 1

    async def test_two_for_more_than_an_append(self, store: PostgresStore, wire: Wire) -> None:
        await store.create("a", NewStream(TEXT))
        wire.trips()
        await store.append("a", Append(text(b"x").batch, TEXT, stream_seq="1"))
        assert wire.trips() == 2
        await store.append("a", Append(close=True))
        assert wire.trips() == 2

    async def test_three_once_another_process_wrote_and_two_as_long_as_they_take_turns(
        self, store: PostgresStore, other: PostgresStore, wire: Wire
    ) -> None:
        await store.create("a", NewStream(TEXT))
        wire.trips()
        for expected in (3, 2, 2):
            await other.append("a", text(b"o"))
            await store.append("a", text(b"s"))
            assert wire.trips() == expected
        for expected in (2, 1):
            await store.append("a", text(b"s"))
            assert wire.trips() == expected

    async def test_two_for_the_one_that_was_used_longest_ago(
        self, store: PostgresStore, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres_memory, "_STREAMS", 2)
        for path in ("a", "b", "c"):
            await store.create(path, NewStream(TEXT))
        wire.trips()
        for path, expected in (("b", 1), ("a", 2), ("c", 2)):
            await store.append(path, text(b"x"))
            assert wire.trips() == expected

    async def test_two_when_more_producers_take_turns_than_are_remembered(
        self, store: PostgresStore, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres_memory, "_PRODUCERS", 2)
        await store.create("a", NewStream(TEXT))
        wire.trips()
        for name in ("p", "q", "r", "p"):
            await store.append("a", by(name, 0, 0, text(b"x")))
            assert wire.trips() == 2
        assert await read_all(store, "a") == b"xxx"


class TestAnotherProcess:
    """What it did since this one wrote last is found out in time."""

    @pytest.fixture
    async def known(self, store: PostgresStore) -> PostgresStore:
        await store.create("a", NewStream(TEXT))
        await store.append("a", by("p", 0, 0, text(b"1")))
        await store.append("a", by("p", 0, 1, text(b"2")))
        return store

    async def test_appended(self, known: PostgresStore, other: PostgresStore) -> None:
        await other.append("a", text(b"other"))
        appended = await known.append("a", text(b"3"))
        assert appended.stream.tail == 8
        assert await read_all(other, "a") == b"12other3"

    async def test_had_the_same_batch(self, known: PostgresStore, other: PostgresStore) -> None:
        await other.append("a", by("p", 0, 2, text(b"3")))
        appended = await known.append("a", by("p", 0, 2, text(b"3")))
        assert (appended.new, appended.stream.tail) == (False, 3)

    async def test_fenced_the_producer(self, known: PostgresStore, other: PostgresStore) -> None:
        await other.append("a", by("p", 1, 0, text(b"new")))
        with pytest.raises(StaleEpoch):
            await known.append("a", by("p", 0, 2, text(b"3")))
        with pytest.raises(ProducerGap):
            await known.append("a", by("p", 1, 2, text(b"3")))

    async def test_raised_the_sequence(self, known: PostgresStore, other: PostgresStore) -> None:
        await other.append("a", Append(text(b"x").batch, TEXT, stream_seq="5"))
        with pytest.raises(SequenceRegression):
            await known.append("a", Append(text(b"x").batch, TEXT, stream_seq="5"))

    async def test_closed_it(self, known: PostgresStore, other: PostgresStore) -> None:
        await other.append("a", Append(close=True))
        with pytest.raises(StreamClosed):
            await known.append("a", text(b"3"))

    async def test_deleted_it(self, known: PostgresStore, other: PostgresStore) -> None:
        await other.delete("a")
        with pytest.raises(StreamNotFound):
            await known.append("a", text(b"3"))

    async def test_created_it_anew(self, known: PostgresStore, other: PostgresStore) -> None:
        await other.delete("a")
        await other.create("a", NewStream(TEXT))
        assert (await known.append("a", by("p", 0, 0, text(b"first")))).new
        assert await read_all(other, "a") == b"first"

    async def test_forked_it(self, known: PostgresStore, other: PostgresStore) -> None:
        await other.create("b", NewStream("", fork=Fork("a")))
        await known.append("a", text(b"3"))
        assert (await known.head("a")).forks == 1
        assert await read_all(known, "b") == b"12"

    async def test_is_about_to_commit(self, known: PostgresStore, schema: Schema) -> None:
        with psycopg.connect(**schema.parameters()) as holder:
            holder.execute("UPDATE durable_streams_stream SET tail = tail + 1")
            holder.execute(
                "INSERT INTO durable_streams_batch (stream_id, finish, start, data)"
                " SELECT id, 3, 2, 'o' FROM durable_streams_stream"
            )
            append = asyncio.create_task(known.append("a", by("p", 0, 2, text(b"3"))))
            await blocked(schema)
        assert (await append).stream.tail == 4
        assert await read_all(known, "a") == b"12o3"

    async def test_used_one_that_would_have_expired(self, schema: Schema) -> None:
        clock = Clock()
        here, there = (PostgresStore(schema.parameters, clock=clock) for _ in range(2))
        for path in ("a", "b"):
            await here.create(path, NewStream(TEXT, Expiry(ttl=10)))
            await here.append(path, text(b"1"))
        clock.now += 9
        for path in ("a", "b"):
            await there.append(path, text(b"2"))
        await here.append("b", text(b"3"))
        clock.now += 3
        with psycopg.connect(**schema.parameters()) as holder:
            holder.execute("SELECT id FROM durable_streams_stream WHERE path = 'b' FOR UPDATE")
            first = asyncio.create_task(here.append("b", text(b"4")))
            await blocked(schema)  # so that the others are taken up together
            tasks = [asyncio.create_task(here.append(path, text(b"5"))) for path in ("a", "b")]
            await asyncio.sleep(0)
        await asyncio.gather(first, *tasks)
        assert [await read_all(there, path) for path in ("a", "b")] == [b"125", b"12345"]
        await here.aclose()
        await there.aclose()

    async def test_of_many_at_once_wrote_to_one(
        self, known: PostgresStore, other: PostgresStore, schema: Schema
    ) -> None:
        paths = [f"s{number}" for number in range(9)]
        for path in paths:
            await known.create(path, NewStream(JSON))
        await other.append(paths[4], messages(b"0", 1))
        with psycopg.connect(**schema.parameters()) as holder:
            holder.execute("SELECT id FROM durable_streams_stream WHERE path = 'a' FOR UPDATE")
            first = asyncio.create_task(known.append("a", text(b"3")))
            await blocked(schema)  # so that the others are taken up together
            tasks = [
                asyncio.create_task(known.append(path, by("p", 0, 0, messages(b"1", 1)))) for path in paths
            ]
            await asyncio.sleep(0)
        await asyncio.gather(first, *tasks)
        assert [await read_all(other, path) for path in paths] == [*[b"1"] * 4, b"0,1", *[b"1"] * 4]


async def test_what_is_remembered_expires_all_the_same(schema: Schema) -> None:
    clock = Clock()
    store = PostgresStore(schema.parameters, clock=clock)
    await store.create("a", NewStream(TEXT, Expiry(ttl=10)))
    await store.append("a", text(b"x"))
    clock.now += 100
    with pytest.raises(StreamNotFound):
        await store.append("a", text(b"y"))
    assert schema.execute("SELECT path FROM durable_streams_stream") == []
    await store.aclose()


async def test_a_statement_that_failed_has_changed_nothing_that_is_remembered(schema: Schema) -> None:
    store = PostgresStore(schema.parameters, busy_seconds=0.2)
    await store.create("a", NewStream(TEXT))
    await store.append("a", by("p", 0, 0, text(b"1")))
    with psycopg.connect(**schema.parameters()) as holder:
        holder.execute("SELECT id FROM durable_streams_stream FOR UPDATE")
        with pytest.raises(Unavailable):
            await store.append("a", by("p", 0, 1, text(b"2")))
    assert (await store.append("a", by("p", 0, 1, text(b"2")))).new
    assert await read_all(store, "a") == b"12"
    await store.aclose()
