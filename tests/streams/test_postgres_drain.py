"""All that is queued, as one transaction on PostgreSQL: its order, its locks, its size."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from durable_chat.streams.embedded import postgres_threads
from durable_chat.streams.embedded.postgres import PostgresStore
from durable_chat.streams.protocol.errors import StreamNotFound
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.stores.base import Append, Batch, NewStream
from tests.streams.postgres import Schema
from tests.streams.postgres_sessions import blocked, listening
from tests.streams.store_contract import JSON, SOON, TEXT, Clock, by, messages, read_all, text


@pytest.fixture
async def store(schema: Schema) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(schema.parameters)
    yield store
    await store.aclose()


class TestDrain:
    async def test_everything_at_once_in_order(self, store: PostgresStore) -> None:
        answers = await asyncio.gather(
            store.create("a", NewStream(TEXT, batch=Batch(b"old", 3))),
            store.append("a", by("p", 3, 0, text(b"er"))),
            store.delete("a"),
            store.append("a", text(b"lost")),
            store.create("a", NewStream(JSON)),
            store.append("a", by("p", 0, 0, messages(b"1", 1, stream_seq="a"))),
            store.append("a", by("p", 0, 1, messages(b"2", 1, stream_seq="b"))),
            store.append("a", by("p", 0, 1, messages(b"2", 1, stream_seq="b"))),
            store.append("a", Append(close=True)),
            return_exceptions=True,
        )
        assert isinstance(answers[3], StreamNotFound)
        assert not any(isinstance(answer, BaseException) for answer in answers[:3] + answers[4:])
        assert await read_all(store, "a") == b"1,2"
        stream = await store.head("a")
        assert (stream.closed, stream.last_seq, stream.tail) == (True, "b", 2)

    async def test_a_stream_created_anew_wakes_who_waits_for_the_deleted_one(
        self, store: PostgresStore, schema: Schema
    ) -> None:
        await store.create("a", NewStream(TEXT, batch=Batch(b"long", 4)))
        await store.create("b", NewStream(TEXT))
        wait = await listening(store, schema)
        with psycopg.connect(**schema.parameters()) as holder:
            holder.execute("SELECT id FROM durable_streams_stream WHERE path = 'b' FOR UPDATE")
            first = asyncio.create_task(store.append("b", text(b"x")))
            await blocked(schema)  # so that the others are committed together
            asks = (store.delete("a"), store.create("a", NewStream(TEXT)), store.append("a", text(b"x")))
            tasks = [asyncio.create_task(ask) for ask in asks]
            await asyncio.sleep(0)
        await asyncio.gather(first, *tasks)
        await asyncio.wait_for(wait, SOON / 2)

    async def test_creates_in_the_same_order_as_any_other(self, store: PostgresStore, schema: Schema) -> None:
        names = [f"{number * 37 % 60}" for number in range(60)]
        await asyncio.gather(*(store.create(name, NewStream(TEXT)) for name in names))
        made = schema.execute("SELECT xmin::text, path FROM durable_streams_stream ORDER BY cmin::text::int")
        drains: dict[str, list[str]] = {}
        for drain, path in made:
            drains.setdefault(drain, []).append(path)
        assert len(drains) < len(names)
        assert all(paths == sorted(paths) for paths in drains.values())

    async def test_a_delete_locks_sources_before_it_holds_anything(
        self, store: PostgresStore, schema: Schema
    ) -> None:
        await store.create("a", NewStream(TEXT))
        await store.create("b", NewStream(TEXT, fork=Fork("a")))
        await store.create("c", NewStream(TEXT, fork=Fork("b")))
        with psycopg.connect(**schema.parameters()) as holder:
            holder.execute("SELECT id FROM durable_streams_stream WHERE path = 'a' FOR UPDATE")
            delete = asyncio.create_task(store.delete("c"))
            await blocked(schema)
            holder.execute("SELECT id FROM durable_streams_stream FOR UPDATE NOWAIT")
        await delete
        assert (await store.head("b")).forks == 0

    async def test_an_append_that_finds_an_expired_fork_holds_nothing_while_it_waits_for_its_source(
        self, schema: Schema
    ) -> None:
        clock = Clock()
        store = PostgresStore(schema.parameters, clock=clock)
        await store.create("a", NewStream(TEXT))
        await store.create("b", NewStream(TEXT, fork=Fork("a")))
        await store.create("c", NewStream(TEXT, Expiry(ttl=10), fork=Fork("b")))
        await store.delete("b")
        clock.now += 100
        with psycopg.connect(**schema.parameters()) as holder:
            holder.execute("SELECT id FROM durable_streams_stream WHERE path = 'a' FOR UPDATE")
            append = asyncio.create_task(store.append("c", text(b"x")))
            await blocked(schema)
            holder.execute("SELECT id FROM durable_streams_stream FOR UPDATE NOWAIT")
        with pytest.raises(StreamNotFound):
            await append
        assert (await store.head("a")).forks == 0
        assert schema.execute("SELECT path FROM durable_streams_stream") == [("a",)]
        await store.aclose()

    async def test_a_fork_among_others_is_written_in_the_same_order_as_they(
        self, store: PostgresStore, schema: Schema
    ) -> None:
        await store.create("source", NewStream(TEXT, batch=Batch(b"old", 3)))
        with psycopg.connect(**schema.parameters()) as holder:
            holder.execute("SELECT id FROM durable_streams_stream FOR UPDATE")
            first = asyncio.create_task(store.append("source", text(b"er")))
            await blocked(schema)  # so that the others are taken up together
            asks = (
                store.create("y", NewStream(TEXT)),
                store.append("source", text(b" than")),
                store.create("x", NewStream(TEXT, fork=Fork("source"))),
                store.create("a", NewStream(TEXT)),
            )
            tasks = [asyncio.create_task(ask) for ask in asks]
            await asyncio.sleep(0)
        await asyncio.gather(first, *tasks)
        assert await read_all(store, "x") == b"older than"
        made = schema.execute("SELECT xmin::text, path FROM durable_streams_stream ORDER BY cmin::text::int")
        drains: dict[str, list[str]] = {}
        for drain, path in made:
            drains.setdefault(drain, []).append(path)
        assert all(paths == sorted(paths) for paths in drains.values())

    async def test_adds_no_more_than_a_statement_takes(
        self, store: PostgresStore, schema: Schema, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres_threads, "_BYTES_AT_ONCE", 100)
        await store.create("a", NewStream(TEXT))
        sizes = [30, 30, 30, 30, 200, 60, 40, 1, *[10] * 30]
        await asyncio.gather(*(store.append("a", text(b"x" * size)) for size in sizes))
        drains = schema.execute(
            "SELECT sum(length(data)), count(*) FROM durable_streams_batch GROUP BY xmin::text"
        )
        assert all(size <= 100 or count == 1 for size, count in drains)
        assert (await store.head("a")).tail == sum(sizes)

    async def test_nothing_of_a_deleted_stream_is_left(self, store: PostgresStore, schema: Schema) -> None:
        await store.create("a", NewStream(TEXT))
        await asyncio.gather(*(store.append("a", by("p", 0, seq, text(b"x"))) for seq in range(10)))
        await store.delete("a")
        for table in ("stream", "batch", "producer"):
            assert schema.execute(f"SELECT count(*) FROM durable_streams_{table}") == [(0,)]
