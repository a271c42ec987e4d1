"""What becomes of the PostgreSQL store's callers and connections when something fails."""

import asyncio
import threading
from collections.abc import AsyncIterator, Collection
from functools import partial

import psycopg
import pytest

from durable_chat.streams.embedded import postgres_tables, postgres_threads
from durable_chat.streams.embedded.postgres import PostgresStore
from durable_chat.streams.embedded.postgres_connection import Connection, Database
from durable_chat.streams.protocol.errors import (
    BadRequest,
    Unavailable,
)
from durable_chat.streams.stores.base import NewStream
from tests.streams.postgres import Schema
from tests.streams.postgres_sessions import connections, cut, listening, notify
from tests.streams.store_contract import ALL, JSON, SOON, TEXT, by, messages, read_all, text


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


class TestFailures:
    async def test_a_restarted_server_is_not_noticed_by_who_asks_after_it(
        self, store: PostgresStore, schema: Schema
    ) -> None:
        await store.create("a", NewStream(TEXT))
        await asyncio.gather(*(store.head("a") for _ in range(20)))
        for number in range(3):
            assert cut(schema)
            await store.append("a", by("p", 0, number, text(b"x")))
            assert cut(schema)
            assert (await store.read("a", 0, limit=ALL)).data == b"x" * (number + 1)

    async def test_connections_that_are_cut_under_load_lose_and_double_nothing(
        self, store: PostgresStore, schema: Schema
    ) -> None:
        await store.create("a", NewStream(JSON))

        async def write(name: int) -> None:
            for seq in range(40):
                append = by(f"p{name}", 0, seq, messages(b"[%d,%d]" % (name, seq), 1))
                while True:
                    try:
                        await store.append("a", append)
                        break
                    except Unavailable:
                        pass

        writers = [asyncio.create_task(write(name)) for name in range(8)]
        while not all(writer.done() for writer in writers):
            await asyncio.to_thread(cut, schema)
            await store.create("a", NewStream(JSON))
        await asyncio.gather(*writers)
        kept = (await read_all(store, "a")).replace(b"],[", b"] [").split()
        for name in range(8):
            mine = [item for item in kept if item.startswith(b"[%d," % name)]
            assert mine == [b"[%d,%d]" % (name, seq) for seq in range(40)]

    async def test_who_waits_is_woken_when_the_listener_was_lost(
        self, store: PostgresStore, other: PostgresStore, schema: Schema
    ) -> None:
        await store.create("a", NewStream(TEXT))
        for tail in range(3):
            wait = await listening(store, schema)
            assert cut(schema, "listener") == 1
            await other.append("a", text(b"x"))
            await asyncio.wait_for(wait, SOON / 2)
            assert (await store.head("a")).tail == tail + 1

    async def test_an_unexpected_error_does_not_end_the_listener(
        self, store: PostgresStore, schema: Schema, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await store.create("a", NewStream(TEXT))
        wait = await listening(store, schema)
        tails, looks = postgres_tables.tails, 0

        def failing(connection: Connection, paths: Collection[str]) -> dict[str, int | None]:
            nonlocal looks
            looks += 1
            if looks == 1:
                raise RuntimeError
            return tails(connection, paths)

        monkeypatch.setattr(postgres_tables, "tails", failing)
        schema.execute("UPDATE durable_streams_stream SET tail = 1")
        notify(schema, "")
        await asyncio.wait_for(wait, SOON / 2)
        assert looks > 1

    async def test_no_server_is_unavailable_until_there_is_one(self, schema: Schema) -> None:
        given = {"conninfo": "host=127.0.0.1 port=1 dbname=none"}
        store = PostgresStore(lambda: given)
        asks = (
            lambda: store.create("a", NewStream(TEXT)),
            lambda: store.read("a", 0, limit=ALL),
            lambda: store.append("a", text(b"x")),
        )
        for ask in asks:
            with pytest.raises(Unavailable):
                await ask()
        given.update(schema.parameters())
        assert (await store.create("a", NewStream(TEXT))).new
        assert await read_all(store, "a") == b""
        await store.aclose()

    async def test_missing_tables_are_unavailable_and_logged(
        self, schema: Schema, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = PostgresStore(lambda: {**schema.parameters(), "options": "-c search_path=nowhere"})
        with pytest.raises(Unavailable, match=r"manage\.py migrate"):
            await store.create("a", NewStream(TEXT))
        assert "UndefinedTable" in caplog.text or "42P01" in caplog.text
        await store.aclose()

    async def test_a_sweep_that_fails_is_logged(
        self, schema: Schema, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(postgres_threads, "_SWEEP_SECONDS", 0.01)
        store = PostgresStore(lambda: {**schema.parameters(), "options": "-c search_path=nowhere"})
        async with asyncio.timeout(SOON):
            while "Expired streams were not erased" not in caplog.text:
                with pytest.raises(Unavailable):
                    await store.head("a")
        await store.aclose()

    @pytest.mark.parametrize("unwritable", ["nul\0", "surrogate\ud800"])
    async def test_one_that_cannot_be_written_spoils_no_other(
        self, store: PostgresStore, unwritable: str
    ) -> None:
        await store.create("a", NewStream(JSON))
        jobs = [
            store.create(f"{unwritable}{number}", NewStream(JSON))
            if number % 5 == 0
            else store.append("a", messages(b"1", 1))
            for number in range(50)
        ]
        answers = await asyncio.gather(*jobs, return_exceptions=True)
        assert sum(isinstance(answer, BadRequest) for answer in answers) == 10
        assert (await store.head("a")).tail == 40
        with pytest.raises(BadRequest):
            await store.head(unwritable)

    async def test_a_name_too_long_for_an_index_spoils_no_other(self, store: PostgresStore) -> None:
        await store.create("a", NewStream(JSON))
        endless = "".join(f"{number:x}" for number in range(20_000))
        answers = await asyncio.gather(
            store.append("a", messages(b"1", 1)),
            store.create(endless, NewStream(JSON)),
            store.append("a", by(endless, 0, 0, messages(b"2", 1))),
            store.append("a", messages(b"3", 1)),
            return_exceptions=True,
        )
        assert [isinstance(answer, BadRequest) for answer in answers] == [False, True, True, False]
        assert await read_all(store, "a") == b"1,3"

    async def test_a_lock_that_is_not_given_is_unavailable(
        self, store: PostgresStore, schema: Schema
    ) -> None:
        await store.create("a", NewStream(TEXT))
        with psycopg.connect(**schema.parameters()) as holder:
            holder.execute("SELECT id FROM durable_streams_stream FOR UPDATE")
            with pytest.raises(Unavailable):
                await store.append("a", text(b"x"))
            assert await read_all(store, "a") == b""
        await store.append("a", text(b"y"))
        assert await read_all(store, "a") == b"y"

    async def test_a_lock_that_is_not_given_spoils_no_other(self, schema: Schema) -> None:
        store = PostgresStore(schema.parameters, busy_seconds=0.1)
        for path in ("held", "free"):
            await store.create(path, NewStream(TEXT))
        with psycopg.connect(**schema.parameters()) as holder:
            holder.execute("SELECT id FROM durable_streams_stream WHERE path = 'held' FOR UPDATE")
            paths = ["held", "free"] * 20
            answers = await asyncio.gather(
                *(store.append(path, text(b"x")) for path in paths), return_exceptions=True
            )
        refused = [isinstance(answer, Unavailable) for answer in answers]
        assert refused == [path == "held" for path in paths]
        assert (await store.head("free")).tail == 20
        await store.aclose()


class TestConnections:
    async def test_are_few_and_end_with_the_store(self, schema: Schema) -> None:
        before, others = connections(schema), set(threading.enumerate())
        store = PostgresStore(schema.parameters)
        assert connections(schema) == before
        await store.create("a", NewStream(TEXT))
        await asyncio.gather(*(store.read("a", 0, limit=ALL) for _ in range(100)))
        wait = await listening(store, schema)
        async with asyncio.timeout(SOON):
            while await asyncio.to_thread(connections, schema) > before + 5:
                pass  # the one that tried LISTEN out
        started = {each for each in threading.enumerate() if each.name.startswith("durable-streams")} - others
        await store.aclose()
        await wait
        assert not any(thread.is_alive() for thread in started)
        async with asyncio.timeout(SOON):
            while await asyncio.to_thread(connections, schema) > before:
                pass  # the server takes a moment to see it

    def test_commit_before_they_acknowledge_whatever_the_site_says(self, schema: Schema) -> None:
        careless = "-c synchronous_commit=off -c default_transaction_isolation=serializable"
        parameters = schema.parameters()
        database = Database(partial(dict, parameters, options=f"{parameters['options']} {careless}"))
        told = "SELECT current_setting('synchronous_commit'), current_setting('transaction_isolation')"
        with database.connect("test") as connection:
            assert database.at_once(connection, told, ()) == ("on", "read committed")
            database.begin(connection)
            assert connection.execute(told).fetchone() == ("on", "read committed")

    @pytest.mark.parametrize("how", ["reading", "writing", "writing at once"])
    def test_behind_a_pooler_keep_nothing_in_the_session(self, schema: Schema, how: str) -> None:
        parameters = dict(schema.parameters(), assume_role="pg_monitor")
        parameters["options"] += " -c synchronous_commit=off"
        database = Database(lambda: parameters, pooled=True)
        told = "SELECT current_user, current_setting('synchronous_commit'), current_setting('lock_timeout')"
        with database.connect("test") as connection:
            before = connection.execute(told).fetchone()
            if how == "writing":
                database.begin(connection)
                within = connection.execute(told).fetchone()
                connection.commit()
            elif how == "writing at once":
                within = database.at_once(connection, told, ())
            else:
                with database.reading(connection):
                    within = connection.execute(told).fetchone()
            assert within == ("pg_monitor", "on", "5s")
            assert connection.execute(told).fetchone() == before
            assert before == ("postgres", "off", "0")

    async def test_what_was_asked_before_the_end_is_done(self, schema: Schema) -> None:
        store = PostgresStore(schema.parameters)
        await store.create("a", NewStream(JSON))
        appends = [asyncio.create_task(store.append("a", messages(b"1", 1))) for _ in range(100)]
        await asyncio.sleep(0)
        await store.aclose()
        assert all(appended.new for appended in await asyncio.gather(*appends))
        again = PostgresStore(schema.parameters)
        assert (await again.head("a")).tail == 100
        await again.aclose()
