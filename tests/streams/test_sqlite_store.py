"""What is asked of the SQLite store alone: its file, its other users, its failures."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from durable_chat.streams.protocol.errors import StaleEpoch, StreamGone, StreamNotFound, Unavailable
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.stores.base import Append, Batch, NewStream
from durable_chat.streams.stores.file import _STREAMS
from durable_chat.streams.stores.sqlite import SQLiteStore
from tests.streams.store_contract import ALL, JSON, SOON, TEXT, begun, by, messages, read_all, text

ROOT = Path(__file__).resolve().parents[2]


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
    """Another user of the same file. To SQLite, another process is one more connection, and so is this."""
    other = SQLiteStore(path)
    yield other
    await other.aclose()


def on_disk(path: Path, needle: bytes) -> bool:
    return any(needle in file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


def made(path: Path) -> bool:
    return path.exists()


def fill(path: Path, content: bytes) -> None:
    path.write_bytes(content)


class TestFile:
    async def test_is_made_by_the_first_call(self, path: Path) -> None:
        store = SQLiteStore(path)
        assert not made(path)
        with pytest.raises(StreamNotFound):
            await store.head("a")
        assert made(path)
        await store.aclose()

    async def test_keeps_everything(self, store: SQLiteStore, path: Path) -> None:
        await store.create("a", NewStream("text/plain; x=1", Expiry(expires_at="2999-01-01T00:00:00+01:00")))
        await store.append("a", by("p", 3, 0, text(b"one", stream_seq="s1")))
        await store.append("a", by("p", 3, 1, text(b"two", close=True)))
        await store.create("b", NewStream(JSON, Expiry(ttl=77), Batch(b"1,2", 2)))
        before = await store.head("a"), await store.head("b")
        await store.aclose()

        again = SQLiteStore(path)
        assert (await again.head("a"), await again.head("b")) == before
        assert await read_all(again, "a") == b"onetwo"
        assert (await again.read("b", 2, limit=ALL)).up_to_date
        assert not (await again.append("a", by("p", 3, 1, text(b"two", close=True)))).new
        await again.aclose()

    async def test_keeps_forks(self, store: SQLiteStore, path: Path) -> None:
        await store.create("a", NewStream(JSON, batch=Batch(b"1,2,3", 3)))
        await store.create("b", NewStream(JSON, Expiry(ttl=77), fork=Fork("a", 0, 2)))
        await store.append("b", messages(b'"own"', 1))
        await store.delete("a")
        before = await store.head("b")
        await store.aclose()

        again = SQLiteStore(path)
        assert await again.head("b") == before
        assert await read_all(again, "b") == b'1,2,"own"'
        with pytest.raises(StreamGone):
            await again.head("a")
        await again.delete("b")
        with pytest.raises(StreamNotFound):
            await again.head("a")
        await again.aclose()

    async def test_a_newer_version_is_left_alone(self, path: Path) -> None:
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version=1000")
        connection.close()
        store = SQLiteStore(path)
        with pytest.raises(Unavailable, match="newer version"):
            await store.create("a", NewStream(TEXT))
        await store.aclose()

    async def test_of_the_first_version_learns_when_its_streams_end(self, path: Path) -> None:
        moments = {"a": "2030-01-01T00:00:00+15:00", "b": "2020-01-01t00:00:00.5-23:30", "c": None}
        with sqlite3.connect(path) as connection:
            connection.executescript(f"{_STREAMS} PRAGMA user_version=1;")
            connection.executemany(
                "INSERT INTO stream (path, tag, content_type, ttl, expires_at, tail, closed, touched)"
                " VALUES (?, 'tag', 'text/plain', ?, ?, 0, 0, 1000)",
                [(path, None if moment else 100, moment) for path, moment in moments.items()],
            )
        connection.close()
        store = SQLiteStore(path, clock=lambda: 0.0)
        await store.head("a")
        await store.aclose()
        with sqlite3.connect(path) as connection:
            ends = dict(connection.execute("SELECT path, ends FROM stream"))
        connection.close()
        assert ends == {
            "a": datetime(2029, 12, 31, 9, tzinfo=UTC).timestamp(),
            "b": datetime(2020, 1, 1, 23, 30, 0, 500_000, tzinfo=UTC).timestamp(),
            "c": 1110.0,
        }

    async def test_many_users_may_make_it_at_once(self, path: Path) -> None:
        stores = [SQLiteStore(path) for _ in range(8)]
        created = await asyncio.gather(*(store.create("a", NewStream(TEXT)) for store in stores))
        assert sum(answer.new for answer in created) == 1
        for store in stores:
            await store.aclose()

    async def test_what_is_deleted_is_erased(self, store: SQLiteStore, path: Path) -> None:
        secret = b"the-answer-is-forty-two"
        await store.create("keep", NewStream(TEXT, batch=Batch(b"something-else", 14)))
        await store.create("path-of-a-person", NewStream(TEXT, batch=Batch(secret, len(secret))))
        for number in range(50):
            await store.append("path-of-a-person", by("name-of-a-person", 0, number, text(secret * 300)))
        assert on_disk(path, secret)
        await store.delete("path-of-a-person")
        assert not on_disk(path, secret)
        assert not on_disk(path, b"of-a-person")
        assert await read_all(store, "keep") == b"something-else"

    async def test_what_was_deleted_is_erased_with_its_last_fork(
        self, store: SQLiteStore, path: Path
    ) -> None:
        await store.create("path-of-a", NewStream(TEXT, batch=Batch(b"secret-of-a", 11)))
        await store.append("path-of-a", by("producer-of-a", 0, 0, text(b"more")))
        for fork in ("b", "c"):
            await store.create(fork, NewStream(TEXT, fork=Fork("path-of-a", 11)))
        await store.delete("path-of-a")
        assert not on_disk(path, b"producer-of-a")
        await store.delete("b")
        assert await read_all(store, "c") == b"secret-of-a"
        await store.delete("c")
        assert not on_disk(path, b"of-a")

    async def test_a_tail_is_read_without_asking_a_source(self, store: SQLiteStore, path: Path) -> None:
        await store.create("a", NewStream(TEXT, batch=Batch(b"ab", 2)))
        await store.create("b", NewStream(TEXT, batch=Batch(b"cd", 2), fork=Fork("a")))
        with sqlite3.connect(path) as connection:
            connection.execute("DELETE FROM batch WHERE start = 0")  # what is the source's
        connection.close()
        assert (await store.read("b", 2, limit=ALL)).data == b"cd"
        assert (await store.append("b", text(b"ef"))).stream.tail == 6

    async def test_what_a_reader_still_holds_is_erased_after_it(self, store: SQLiteStore, path: Path) -> None:
        await store.create("a", NewStream(TEXT, batch=Batch(b"secret-of-a", 11)))
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN")
        holder.execute("SELECT count(*) FROM stream").fetchone()
        await store.delete("a")
        assert on_disk(path, b"secret-of-a")
        holder.execute("COMMIT")
        holder.close()
        await store.create("b", NewStream(TEXT))  # the next turn of the writer
        assert not on_disk(path, b"secret-of-a")


class TestOtherProcesses:
    async def test_see_what_was_acknowledged(self, store: SQLiteStore, other: SQLiteStore) -> None:
        await store.create("a", NewStream(JSON))
        for number in range(20):
            await (store, other)[number % 2].append("a", messages(b"%d" % number, 1))
            page = await (other, store)[number % 2].read("a", number, limit=ALL)
            assert page.data == b"%d" % number

    async def test_are_bound_by_the_same_rules(self, store: SQLiteStore, other: SQLiteStore) -> None:
        await store.create("a", NewStream(TEXT))
        await store.append("a", by("p", 0, 0, text(b"x")))
        assert not (await other.append("a", by("p", 0, 0, text(b"x")))).new
        assert (await other.append("a", by("p", 1, 0, text(b"y")))).new
        with pytest.raises(StaleEpoch):
            await store.append("a", by("p", 0, 1, text(b"z")))
        assert await read_all(store, "a") == b"xy"

    async def test_take_turns_under_load(self, store: SQLiteStore, other: SQLiteStore) -> None:
        await store.create("a", NewStream(JSON))
        appends = [
            (store, other)[number % 2].append("a", by(f"p{number % 8}", 0, number // 8, messages(b"1", 1)))
            for number in range(8)
        ]
        assert all(appended.new for appended in await asyncio.gather(*appends))
        assert (await store.head("a")).tail == 8

    @pytest.mark.parametrize("event", ["append", "close", "delete"])
    async def test_wake_who_waits_here(self, store: SQLiteStore, other: SQLiteStore, event: str) -> None:
        await store.create("a", NewStream(TEXT))
        waits = [asyncio.create_task(store.wait("a", 0, timeout=SOON)) for _ in range(3)]
        await begun(store)
        if event == "append":
            await other.append("a", text(b"x"))
        elif event == "close":
            await other.append("a", Append(close=True))
        else:
            await other.delete("a")
        await asyncio.wait_for(asyncio.gather(*waits), SOON / 2)

    async def test_wake_who_waits_for_what_was_deleted_and_created_anew(
        self, store: SQLiteStore, path: Path
    ) -> None:
        await store.create("a", NewStream(TEXT, batch=Batch(b"long", 4)))
        wait = asyncio.create_task(store.wait("a", 4, timeout=SOON))
        await begun(store)
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")  # or the first of them would be committed alone
        asks = (store.delete("a"), store.create("a", NewStream(TEXT)), store.append("a", text(b"x")))
        tasks = [asyncio.create_task(ask) for ask in (store.create("b", NewStream(TEXT)), *asks)]
        await asyncio.sleep(0)
        holder.execute("COMMIT")
        holder.close()
        await asyncio.gather(*tasks)
        await asyncio.wait_for(wait, SOON / 2)

    async def test_are_heard_of_though_the_connection_has_been_replaced(
        self, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = SQLiteStore(path, busy_seconds=0.05)
        await store.create("a", NewStream(TEXT))
        wait = asyncio.create_task(store.wait("a", 0, timeout=SOON))
        async with asyncio.timeout(SOON):
            while store._writer._seen is None:
                await begun(store)
        holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        holder.execute("BEGIN IMMEDIATE")
        holder.execute("UPDATE stream SET tail = 1")
        # The other commits when this one has lost its connection, and has no new one yet.
        monkeypatch.setattr(caplog.handler, "emit", lambda _: holder.execute("COMMIT"))
        with pytest.raises(Unavailable):
            await store.create("b", NewStream(TEXT))
        await asyncio.wait_for(wait, SOON / 2)
        holder.close()
        await store.aclose()


class TestFailures:
    async def test_a_locked_file_is_unavailable_until_it_is_free(self, path: Path) -> None:
        store = SQLiteStore(path, busy_seconds=0.05)
        await store.create("a", NewStream(TEXT))
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        answers = await asyncio.gather(
            *(store.append("a", text(b"x")) for _ in range(5)), return_exceptions=True
        )
        assert all(isinstance(answer, Unavailable) for answer in answers)
        assert await read_all(store, "a") == b""  # readers are not in the way of writers, nor they of them
        holder.execute("COMMIT")
        holder.close()
        await store.append("a", text(b"y"))
        assert await read_all(store, "a") == b"y"
        await store.aclose()

    async def test_a_missing_directory_is_unavailable_until_it_is_there(self, tmp_path: Path) -> None:
        store = SQLiteStore(tmp_path / "later" / "streams.sqlite3")
        with pytest.raises(Unavailable):
            await store.create("a", NewStream(TEXT))
        with pytest.raises(Unavailable):
            await store.read("a", 0, limit=ALL)
        (tmp_path / "later").mkdir()
        assert (await store.create("a", NewStream(TEXT))).new
        assert await read_all(store, "a") == b""
        await store.aclose()

    async def test_what_is_no_database_is_unavailable(self, path: Path) -> None:
        fill(path, b"not a database, but long enough to be taken for one" * 100)
        store = SQLiteStore(path)
        with pytest.raises(Unavailable):
            await store.create("a", NewStream(TEXT))
        await store.aclose()

    async def test_one_that_cannot_be_written_spoils_no_other(self, store: SQLiteStore) -> None:
        await store.create("a", NewStream(JSON))
        unwritable = NewStream("text/\ud800")  # no UTF-8 for it
        jobs = [
            store.create(f"b{number}", unwritable)
            if number % 5 == 0
            else store.append("a", messages(b"1", 1))
            for number in range(50)
        ]
        answers = await asyncio.gather(*jobs, return_exceptions=True)
        assert sum(isinstance(answer, UnicodeEncodeError) for answer in answers) == 10
        assert (await store.head("a")).tail == 40
        with pytest.raises(StreamNotFound):
            await store.head("b0")

    async def test_a_caller_that_leaves_breaks_nothing(self, store: SQLiteStore) -> None:
        await store.create("a", NewStream(JSON))
        appends = [asyncio.create_task(store.append("a", messages(b"%d" % n, 1))) for n in range(100)]
        await asyncio.sleep(0)
        for append in appends[::2]:
            append.cancel()
        answers = await asyncio.gather(*appends, return_exceptions=True)
        kept = {int(number) for number in (await read_all(store, "a")).split(b",")}
        assert kept >= set(range(1, 100, 2))
        assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])
        assert (await store.append("a", messages(b"100", 1))).stream.tail == len(kept) + 1


class TestThreads:
    async def test_end_with_the_store(self, path: Path) -> None:
        before = set(threading.enumerate())
        store = SQLiteStore(path)
        assert set(threading.enumerate()) == before
        await store.create("a", NewStream(TEXT))
        started = {each for each in threading.enumerate() if each.name.startswith("durable-streams")} - before
        assert started
        await store.aclose()
        assert not any(thread.is_alive() for thread in started)

    async def test_what_was_asked_before_the_end_is_done(self, path: Path) -> None:
        store = SQLiteStore(path)
        await store.create("a", NewStream(JSON))
        appends = [asyncio.create_task(store.append("a", messages(b"1", 1))) for _ in range(100)]
        await asyncio.sleep(0)
        await store.aclose()
        assert all(appended.new for appended in await asyncio.gather(*appends))
        again = SQLiteStore(path)
        assert (await again.head("a")).tail == 100
        await again.aclose()

    def test_do_not_keep_a_process_alive(self, path: Path) -> None:
        program = f"""
import asyncio
from pathlib import Path
from durable_chat.streams.stores.base import Batch, NewStream
from durable_chat.streams.stores.sqlite import SQLiteStore

async def main():
    await SQLiteStore(Path({str(path)!r})).create("a", NewStream("text/plain", batch=Batch(b"abc", 3)))

asyncio.run(main())
"""
        subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=SOON, cwd=ROOT)
        store = SQLiteStore(path)
        assert asyncio.run(read_all(store, "a")) == b"abc"
        store.close()
