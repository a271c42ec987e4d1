"""What is asked of the PostgreSQL store alone: its other users, its connections, its failures."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Collection
from functools import partial
from pathlib import Path

import psycopg
import pytest

from durable_chat.streams.embedded import postgres_listener, postgres_tables, postgres_threads
from durable_chat.streams.embedded.postgres import PostgresStore
from durable_chat.streams.embedded.postgres_connection import Connection, Database
from durable_chat.streams.embedded.postgres_drain import CHANNEL
from durable_chat.streams.protocol.errors import (
    BadRequest,
    StaleEpoch,
    StreamExists,
    StreamNotFound,
    Unavailable,
)
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.stores.base import Append, Batch, NewStream
from tests.streams.postgres import Schema
from tests.streams.store_contract import ALL, JSON, SOON, TEXT, Clock, begun, by, messages, read_all, text

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


def cut(schema: Schema, role: str = "%") -> int:
    """Have the server end this schema's connections; how many there were."""
    return len(
        schema.execute(
            "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a"
            " WHERE a.application_name LIKE %s AND a.pid <> pg_backend_pid()",
            f"{schema.name} {role}",
        )
    )


def connections(schema: Schema) -> int:
    found = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE %s"
    return len(schema.execute(found, f"{schema.name} %"))


def notify(schema: Schema, payload: str) -> None:
    schema.execute(f"SELECT pg_notify({CHANNEL}, %s)", payload)


async def blocked(schema: Schema) -> None:
    """By the time that this returns a writer waits for a lock."""
    waits = "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'"
    async with asyncio.timeout(SOON):
        while not await asyncio.to_thread(schema.execute, waits, f"{schema.name} writer"):
            pass


async def listening(store: PostgresStore, schema: Schema) -> "asyncio.Task[None]":
    """A wait at "a", by the time that LISTEN has been seen to work."""
    wait = asyncio.create_task(store.wait("a", (await store.head("a")).tail, timeout=SOON))
    async with asyncio.timeout(SOON):
        while not schema.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = %s", f"{schema.name} listener"
        ):
            await begun(store)
    return wait


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
        before = connections(schema)
        store = PostgresStore(schema.parameters)
        assert connections(schema) == before
        await store.create("a", NewStream(TEXT))
        await asyncio.gather(*(store.read("a", 0, limit=ALL) for _ in range(100)))
        wait = await listening(store, schema)
        async with asyncio.timeout(SOON):
            while await asyncio.to_thread(connections, schema) > before + 5:
                pass  # the one that tried LISTEN out
        started = [thread for thread in threading.enumerate() if thread.name.startswith("durable-streams")]
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
        with database.connect("test", autocommit=False) as connection:
            database.begin(connection)
            assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
            assert connection.execute("SHOW transaction_isolation").fetchone() == ("read committed",)

    @pytest.mark.parametrize("autocommit", [True, False], ids=["reading", "writing"])
    def test_behind_a_pooler_keep_nothing_in_the_session(self, schema: Schema, autocommit: bool) -> None:
        parameters = dict(schema.parameters(), assume_role="pg_monitor")
        parameters["options"] += " -c synchronous_commit=off"
        database = Database(lambda: parameters, pooled=True)
        told = "SELECT current_user, current_setting('synchronous_commit'), current_setting('lock_timeout')"
        with database.connect("test", autocommit=autocommit) as connection:
            before = connection.execute(told).fetchone()
            connection.rollback()
            if autocommit:
                with database.reading(connection):
                    within = connection.execute(told).fetchone()
            else:
                database.begin(connection)
                within = connection.execute(told).fetchone()
                connection.commit()
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


class TestSite:
    def test_is_told_to_migrate(self, schema: Schema) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "django", "durable_streams", "list"],
            check=False,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**schema.environment(), "TEST_POSTGRES_SCHEMA": "nowhere"},
            timeout=SOON,
        )
        assert done.returncode == 4
        assert "run `manage.py migrate`" in done.stderr
        assert "file" not in done.stderr

    def test_keeps_its_streams_in_its_database_without_being_told(self, schema: Schema) -> None:
        program = """
import asyncio, django
django.setup()
from durable_chat.streams.embedded import process
from durable_chat.streams.protocol.exchange import Request

put = Request("PUT", "a", {}, {"content-type": "text/plain"}, b"abc")
assert asyncio.run(process.handle(put)).status == 201
assert asyncio.run(process.handle(Request("GET", "a"))).body == b"abc"
"""
        subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            check=True,
            cwd=ROOT,
            env=schema.environment(),
            timeout=SOON,
        )
        assert schema.execute("SELECT path, tail FROM durable_streams_stream") == [("a", 3)]

    def test_has_the_tables_that_its_models_say(self, schema: Schema) -> None:
        command = [sys.executable, "-m", "django", "makemigrations", "--check", "--dry-run"]
        subprocess.run(command, check=True, cwd=ROOT, env=schema.environment(), timeout=SOON)

    def test_knows_its_streams_as_models(self, schema: Schema) -> None:
        program = """
import asyncio, django
django.setup()
from durable_chat.streams.embedded import models, process
from durable_chat.streams.protocol.exchange import Request

stamp = {"content-type": "text/plain", "producer-id": "p", "producer-epoch": "0", "producer-seq": "0"}
asyncio.run(process.handle(Request("PUT", "a", {}, {"content-type": "text/plain"})))
asyncio.run(process.handle(Request("POST", "a", {}, stamp, b"abc")))
stream = models.Stream.objects.get()
told = [str(stream), str(stream.batch_set.get()), str(stream.producer_set.get())]
assert told == ["a", "0 to 3", "p at 0/0"]
stream.delete()
assert not models.Batch.objects.exists() and not models.Producer.objects.exists()
"""
        subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            check=True,
            cwd=ROOT,
            env=schema.environment(),
            timeout=SOON,
        )
