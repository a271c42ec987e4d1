"""Two server processes on one database and the same streams, wherever those are; one dies or freezes."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.faults.conftest import Serve
from tests.faults.evidence import rows, said, settled, the_end, words
from tests.faults.people import DurableReader, Person, SocketReader, asked, following, until
from tests.live import LiveServer

pytestmark = pytest.mark.parametrize("database", ["sqlite", "postgres", "service"], indirect=True)


async def test_each_sees_and_stops_what_the_other_writes(serve: Serve) -> None:
    here, there = serve(lease_seconds=15), serve(lease_seconds=15)
    question = "words=100 delay=50"
    async with Person(here.base) as person, person.at(there.base) as elsewhere:
        conversation, run_id = await asked(person, question)
        whole = [kind(at, conversation) for kind in KINDS for at in (person, elsewhere)]
        views = [DurableReader(at, conversation, run=run_id) for at in (person, elsewhere)]
        async with following(*whole, *views):
            await until(lambda: all(words(30) in reader.text for reader in (*whole, *views)))
            assert await elsewhere.active(conversation) == run_id  # so it came live, a word at a time
            assert (await elsewhere.send(conversation, "words=3", id="m-2")).status_code == 409
            assert (await elsewhere.send(conversation, question, id="m-1")).status_code == 202
            assert (await elsewhere.stop(conversation)).status_code == 202
            chunks = await settled(elsewhere, conversation, directory=there.directory)
            assert chunks[the_end(chunks, run_id)]["code"] == "stopped"
            assert [row.state for row in rows(there.directory, conversation)] == ["stopped"]
            for reader in whole:
                await reader.arrives(at=chunks)
            for view in views:
                await view.arrives()
                assert view.text == said(chunks, run_id)
                assert view.items[-1]["type"] == "abort"


async def test_the_other_finishes_what_the_dead_one_began(serve: Serve) -> None:
    dies, stays = serve(), serve()
    async with Person(dies.base) as person, person.at(stays.base) as elsewhere:
        conversation, run_id = await asked(person, "words=400 delay=10")
        moving = [kind(person, conversation) for kind in KINDS]
        moving_view = DurableReader(person, conversation, run=run_id)
        staying = [kind(elsewhere, conversation) for kind in KINDS]
        views = [moving_view, DurableReader(elsewhere, conversation, run=run_id)]
        async with following(*moving, *staying, *views):
            await until(lambda: all(words(20) in reader.text for reader in (*moving, *staying, *views)))
            dies.kill()
            for reader in (*moving, moving_view):
                reader.person = elsewhere
            chunks = await settled(elsewhere, conversation, directory=stays.directory)
            assert chunks[the_end(chunks, run_id)]["code"] == "interrupted"
            for view in views:
                await view.arrives()
                assert view.text == said(chunks, run_id)
            assert (await elsewhere.send(conversation, "words=3", id="m-2")).status_code == 202
            chunks = await settled(elsewhere, conversation, directory=stays.directory)
            for reader in (*moving, *staying):
                await reader.arrives(at=chunks)
        await asyncio.to_thread(dies.start)
        assert await settled(person, conversation, directory=dies.directory) == chunks


async def test_a_zombie_writes_nothing_and_its_readers_see_the_end(serve: Serve) -> None:
    """It wakes while the conversation is another's, in the middle of the next answer."""
    freezes, stays = serve(), serve()
    async with Person(freezes.base) as person, person.at(stays.base) as elsewhere:
        conversation, run_id = await asked(person, "words=60 delay=20")
        whole = [kind(at, conversation) for kind in KINDS for at in (person, elsewhere)]
        view = DurableReader(person, conversation, run=run_id)
        async with following(*whole, view):
            await until(lambda: all(words(5) in reader.text for reader in (*whole, view)))
            with frozen(freezes):
                ended = await settled(elsewhere, conversation, directory=stays.directory)
                assert ended[the_end(ended, run_id)]["code"] == "interrupted"
                # Longer than what is left of the first answer: whatever the zombie says, it says meanwhile.
                sent = await elsewhere.send(conversation, "words=100 delay=20", id="m-2")
                assert sent.status_code == 202
            chunks = await settled(elsewhere, conversation, directory=stays.directory)
            assert chunks[: len(ended)] == ended
            assert [row.state for row in rows(stays.directory, conversation)] == ["interrupted", "done"]
            assert not any(run_id in str(chunk) for chunk in chunks[len(ended) :])
            for reader in whole:
                await reader.arrives(at=chunks)
            await view.arrives()
            assert view.text == said(chunks, run_id)
        assert (await person.send(conversation, "words=3", id="m-3")).status_code == 202
        await settled(person, conversation, directory=freezes.directory)


KINDS = (DurableReader, SocketReader)


@contextmanager
def frozen(server: LiveServer) -> Iterator[None]:
    """Stopped in the middle of whatever it does but a commit: its lock would stop everybody else, too."""
    server.freeze()
    while _locked(server.directory):
        server.thaw()
        server.freeze()
    try:
        yield
    finally:
        server.thaw()


def _locked(directory: Path) -> bool:
    url = (directory / "database.url").read_text()
    if url.startswith("postgres"):
        with psycopg.connect(url) as connection:
            return connection.execute(_IN_TRANSACTION).fetchall() != []
    for path in directory.glob("*.sqlite3"):
        with closing(sqlite3.connect(path, timeout=0.5, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            connection.execute("ROLLBACK")
    return False


_IN_TRANSACTION = b"""
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
"""
