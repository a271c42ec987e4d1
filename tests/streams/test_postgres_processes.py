"""Several users of one PostgreSQL: one set of rules, and who waits hears of all."""

import asyncio
import sys
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest

from durable_chat.streams.embedded import postgres_listener, postgres_tables
from durable_chat.streams.embedded.postgres import PostgresStore
from durable_chat.streams.embedded.postgres_connection import Connection
from durable_chat.streams.protocol.errors import (
    StaleEpoch,
    StreamExists,
    StreamNotFound,
)
from durable_chat.streams.stores.base import NewStream
from tests.streams.postgres import Schema
from tests.streams.postgres_sessions import listening, notify
from tests.streams.store_contract import ALL, JSON, SOON, TEXT, begun, by, messages, read_all, text

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def store(schema: Schema) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(schema.parameters)
    yield store
    await store.aclose()


@pytest.fixture
async def other(schema: Schema) -> AsyncIterator[PostgresStore]:
    """Another user of the same tables. To PostgreSQL, another process is other connections, as this is."""
    other = PostgresStore(schema.parameters)
    yield other
    await other.aclose()


@pytest.fixture(params=[False, True], ids=["listening", "polling"])
async def here(schema: Schema, request: pytest.FixtureRequest) -> AsyncIterator[PostgresStore]:
    here = PostgresStore(schema.parameters, pooled=request.param)
    yield here
    await here.aclose()


class TestOtherProcesses:
    async def test_see_what_was_acknowledged(self, store: PostgresStore, other: PostgresStore) -> None:
        await store.create("a", NewStream(JSON))
        for number in range(20):
            await (store, other)[number % 2].append("a", messages(b"%d" % number, 1))
            page = await (other, store)[number % 2].read("a", number, limit=ALL)
            assert page.data == b"%d" % number

    async def test_are_bound_by_the_same_rules(self, store: PostgresStore, other: PostgresStore) -> None:
        await store.create("a", NewStream(TEXT))
        await store.append("a", by("p", 0, 0, text(b"x")))
        assert not (await other.append("a", by("p", 0, 0, text(b"x")))).new
        assert (await other.append("a", by("p", 1, 0, text(b"y")))).new
        with pytest.raises(StaleEpoch):
            await store.append("a", by("p", 0, 1, text(b"z")))
        assert await read_all(store, "a") == b"xy"

    async def test_write_the_same_streams_at_once(self, store: PostgresStore, other: PostgresStore) -> None:
        paths = [f"s{number}" for number in range(5)]
        created = await asyncio.gather(
            *(each.create(path, NewStream(JSON)) for path in paths for each in (store, other))
        )
        assert sum(answer.new for answer in created) == len(paths)
        await asyncio.gather(
            *(
                each.append(path, by(f"p{name}", 0, 0, messages(b"%d" % name, 1)))
                for name in range(20)
                for each, order in ((store, paths), (other, paths[::-1]))
                for path in order
            )
        )
        for path in paths:
            kept = (await read_all(store, path)).split(b",")
            assert sorted(map(int, kept)) == list(range(20))

    async def test_create_and_delete_the_same_stream_at_once(
        self, store: PostgresStore, other: PostgresStore
    ) -> None:
        answers = await asyncio.gather(
            *(
                ask
                for _ in range(30)
                for each in (store, other)
                for ask in (each.create("a", NewStream(TEXT)), each.delete("a"))
            ),
            return_exceptions=True,
        )
        refused = [answer for answer in answers if isinstance(answer, BaseException)]
        assert all(isinstance(answer, StreamNotFound | StreamExists) for answer in refused), refused

    @pytest.mark.parametrize("event", ["append", "close", "delete"])
    async def test_wake_who_waits_here(self, here: PostgresStore, event: str, other: PostgresStore) -> None:
        await here.create("a", NewStream(TEXT))
        for position in range(2):  # the first wait begins to listen, the second finds it listening
            waits = [asyncio.create_task(here.wait("a", position, timeout=SOON)) for _ in range(3)]
            await begun(here)
            await other.append("a", text(b"x", close=event == "close" and position == 1))
            await asyncio.wait_for(asyncio.gather(*waits), SOON / 2)
        if event == "delete":
            wait = asyncio.create_task(here.wait("a", 2, timeout=SOON))
            await begun(here)
            await other.delete("a")
            await asyncio.wait_for(wait, SOON / 2)

    async def test_more_news_than_a_notice_holds(
        self, store: PostgresStore, other: PostgresStore, schema: Schema
    ) -> None:
        await store.create("a", NewStream(TEXT))
        paths = [f"{number}{'x' * 300}" for number in range(60)]
        await asyncio.gather(*(other.create(path, NewStream(TEXT)) for path in paths))
        wait = await listening(store, schema)
        await asyncio.gather(*(other.append(path, text(b"x")) for path in [*paths, "a"]))
        await asyncio.wait_for(wait, SOON / 2)

    async def test_a_notice_that_comes_with_the_answer_to_a_query_wakes(
        self, store: PostgresStore, schema: Schema, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await store.create("a", NewStream(TEXT))
        wait = await listening(store, schema)
        tails, looks = postgres_tables.tails, 0

        def busy(connection: Connection, paths: Collection[str]) -> dict[str, int | None]:
            nonlocal looks
            looks += 1
            found = tails(connection, paths)
            if looks == 1:
                notify(schema, '[["a", 1]]')
                for _ in range(5):
                    connection.execute("SELECT 1")
            return found

        monkeypatch.setattr(postgres_listener, "_HEARTBEAT_SECONDS", SOON * 10)
        monkeypatch.setattr(postgres_tables, "tails", busy)
        notify(schema, "")  # look for yourselves
        await asyncio.wait_for(wait, SOON / 2)

    async def test_notices_without_end_do_not_put_off_the_look(
        self, store: PostgresStore, schema: Schema, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres_listener, "_HEARTBEAT_SECONDS", 0.05)
        await store.create("a", NewStream(TEXT))
        wait = await listening(store, schema)
        schema.execute("UPDATE durable_streams_stream SET tail = 1")  # the notice of it was lost
        async with asyncio.timeout(SOON / 2):
            while not wait.done():
                await asyncio.to_thread(notify, schema, '[["another", 1]]')

    @pytest.mark.parametrize("payload", ["no JSON", "[1]", '[["a"]]', '[["a", "b"]]', '{"a": 1}', "null"])
    async def test_what_somebody_else_sends_makes_it_look(
        self, store: PostgresStore, schema: Schema, monkeypatch: pytest.MonkeyPatch, payload: str
    ) -> None:
        monkeypatch.setattr(postgres_listener, "_HEARTBEAT_SECONDS", SOON * 10)
        await store.create("a", NewStream(TEXT))
        wait = await listening(store, schema)
        schema.execute("UPDATE durable_streams_stream SET tail = 1")
        notify(schema, payload)
        await asyncio.wait_for(wait, SOON / 2)

    async def test_another_process_appends_and_this_one_is_woken(
        self, store: PostgresStore, schema: Schema
    ) -> None:
        program = f"""
import asyncio
from durable_chat.streams.embedded.postgres import PostgresStore
from durable_chat.streams.stores.base import Append, Batch
from tests.streams.postgres import Schema

async def main():
    store = PostgresStore(Schema({schema.name!r}).parameters)
    for number in range(50):
        await store.append("a", Append(Batch(b"%d" % number, 1), "application/json"))
    await store.append("a", Append(close=True))

asyncio.run(main())
"""
        await store.create("a", NewStream(JSON))
        process = await asyncio.create_subprocess_exec(sys.executable, "-W", "error", "-c", program, cwd=ROOT)
        position, seen = 0, []
        async with asyncio.timeout(SOON):
            while True:
                page = await store.read("a", position, limit=64)
                seen += page.data.split(b",") if page.data else []
                position = page.end
                if page.closed:
                    break
                if page.up_to_date:
                    await store.wait("a", position, timeout=SOON)
        assert seen == [b"%d" % number for number in range(50)]
        assert await asyncio.wait_for(process.wait(), SOON) == 0  # nor do its threads keep it alive
