"""Every store's catalogue under the same contract, and what erases expired streams when nobody asks."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from durable_chat.streams.embedded import postgres_threads
from durable_chat.streams.embedded.postgres import PostgresStore
from durable_chat.streams.stores import tables, threads
from durable_chat.streams.stores.base import NewStream
from durable_chat.streams.stores.catalogue import CataloguedStore
from durable_chat.streams.stores.file import _STREAMS
from durable_chat.streams.stores.memory import MemoryStore
from durable_chat.streams.stores.sqlite import SQLiteStore
from tests.streams.catalogue_contract import MORTAL, Cataloguing, paths
from tests.streams.postgres import Schema
from tests.streams.store_contract import ALL, SOON, TEXT, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


class TestMemoryStore(Cataloguing):
    @pytest.fixture
    async def store(self, clock: Clock) -> AsyncIterator[CataloguedStore]:
        store = MemoryStore(clock=clock)
        yield store
        await store.aclose()

    async def test_new_streams_push_the_old_ones_out(self, store: MemoryStore, clock: Clock) -> None:
        for number in range(10):
            await store.create(f"old-{number}", MORTAL)
        clock.now += 60
        for number in range(5):
            await store.create(f"new-{number}", NewStream(TEXT))
        assert await store.sweep(limit=100) == 0
        assert len(await paths(store)) == 5


class TestSQLiteStore(Cataloguing):
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "streams.sqlite3"

    @pytest.fixture
    async def store(self, clock: Clock, file: Path) -> AsyncIterator[CataloguedStore]:
        store = SQLiteStore(file, clock=clock)
        yield store
        await store.aclose()

    async def test_the_writer_sweeps_by_itself(
        self, clock: Clock, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(threads, "_SWEEP_SECONDS", 0.01)
        store = SQLiteStore(file, clock=clock)
        count = threads.SWEPT_AT_ONCE + 5
        await asyncio.gather(*(store.create(f"mortal-{number}", MORTAL) for number in range(count)))
        await store.create("stays", NewStream(TEXT))
        clock.now += 60
        with sqlite3.connect(file) as connection:
            async with asyncio.timeout(SOON):
                while connection.execute("SELECT count(*) FROM stream").fetchone() != (1,):
                    await store.head("stays")
        connection.close()
        await store.aclose()

    async def test_a_file_of_the_first_version_is_brought_up_to_date(self, file: Path, clock: Clock) -> None:
        with sqlite3.connect(file) as connection:
            connection.executescript(_STREAMS)
            for path, ttl, expires_at in (("a", 10, None), ("b", None, "2027-01-15t09:00:00.5+01:00")):
                connection.execute(
                    "INSERT INTO stream (path, tag, content_type, ttl, expires_at, tail, closed, touched)"
                    " VALUES (?, ?, ?, ?, ?, 8, 0, ?)",
                    (path, path, TEXT, ttl, expires_at, clock.now),
                )
            connection.executemany(
                "INSERT INTO batch VALUES (1, ?, ?, ?)", [(3, 0, b"one"), (8, 3, b"three")]
            )
            connection.execute("PRAGMA user_version=1")
        connection.close()
        store = SQLiteStore(file, clock=clock)
        assert [listed.size for listed in await store.scan(limit=10)] == [8, 0]
        assert (await store.read("a", 0, limit=ALL)).data == b"onethree"
        clock.now += 1
        assert await store.sweep(limit=10) == 1
        clock.now += 30
        assert await store.sweep(limit=10) == 1
        await store.aclose()

    async def test_no_question_reads_the_whole_table(self, store: SQLiteStore, file: Path) -> None:
        await store.scan(limit=1)
        asked: list[str] = []
        with sqlite3.connect(file) as connection:
            connection.set_trace_callback(asked.append)
            tables.scan(connection, prefix="a", after="ab", limit=10, now=0.0)
            tables.ended(connection, now=0.0, limit=10)
            connection.set_trace_callback(None)
            plans = [
                row[3] for statement in asked for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")
            ]
        connection.close()
        assert len(plans) == 2
        assert all(plan.startswith("SEARCH stream USING") for plan in plans), plans


class TestPostgresStore(Cataloguing):
    @pytest.fixture
    async def store(self, clock: Clock, schema: Schema) -> AsyncIterator[CataloguedStore]:
        store = PostgresStore(schema.parameters, clock=clock)
        yield store
        await store.aclose()

    async def test_the_writer_sweeps_by_itself(
        self, clock: Clock, schema: Schema, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres_threads, "_SWEEP_SECONDS", 0.01)
        store = PostgresStore(schema.parameters, clock=clock)
        count = postgres_threads.SWEPT_AT_ONCE + 5
        await asyncio.gather(*(store.create(f"mortal-{number}", MORTAL) for number in range(count)))
        await store.create("stays", NewStream(TEXT))
        clock.now += 60
        async with asyncio.timeout(SOON):
            while schema.execute("SELECT count(*) FROM durable_streams_stream") != [(1,)]:
                await store.head("stays")
        await store.aclose()
