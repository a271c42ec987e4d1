"""SIGTERM: answers get time to end, readers go on at another server, and the process does end."""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import websockets

from tests.faults.conftest import Serve
from tests.faults.evidence import rows, said, settled, the_end, words
from tests.faults.people import DurableReader, Person, Reader, SocketReader, asked, following, until
from tests.live import ROOT, LiveServer

IN_TIME = 20.0  # far below the 60 s of a live read and the 100 s of the longest answer here
ENDLESS = "words=5000 delay=20"
SERVERS = pytest.mark.parametrize("kind", ["uvicorn", "workers", "daphne"])


async def ends(server: LiveServer) -> None:
    assert await asyncio.to_thread(server.ends, within=IN_TIME), server.log.read_text()


@SERVERS
async def test_an_answer_that_is_nearly_done_is_finished(serve: Serve, kind: Any) -> None:
    leaves, stays = serve(kind=kind, lease_seconds=15, DRAIN_SECONDS="60"), serve(lease_seconds=15)
    async with Person(leaves.base) as person, person.at(stays.base) as elsewhere:
        conversation, run_id = await asked(person, "words=150 delay=20")
        whole: list[Reader] = [DurableReader(person, conversation), SocketReader(person, conversation)]
        view = DurableReader(person, conversation, run=run_id)
        async with following(*whole, view):
            await until(lambda: all(words(10) in reader.text for reader in (*whole, view)))
            leaves.terminate()
            await until(lambda: view.closed)
            for reader in whole:
                reader.person = elsewhere
            await ends(leaves)
            chunks = await settled(elsewhere, conversation, directory=stays.directory)
            assert [row.state for row in rows(stays.directory, conversation)] == ["done"]
            assert view.text == words(150)
            assert (await elsewhere.send(conversation, "words=3", id="m-2")).status_code == 202
            chunks = await settled(elsewhere, conversation, directory=stays.directory)
            for reader in whole:
                await reader.arrives(at=chunks)


@SERVERS
async def test_an_answer_that_takes_too_long_ends_and_says_why(serve: Serve, kind: Any) -> None:
    leaves, stays = serve(kind=kind, lease_seconds=60, DRAIN_SECONDS="0.5"), serve(lease_seconds=60)
    async with Person(leaves.base) as person, person.at(stays.base) as elsewhere:
        conversation, run_id = await asked(person, ENDLESS)
        moving = [DurableReader(person, conversation), SocketReader(person, conversation)]
        view = DurableReader(elsewhere, conversation, run=run_id)
        async with following(*moving, view):
            await until(lambda: all(words(10) in reader.text for reader in (*moving, view)))
            leaves.terminate()
            await view.arrives()
            for reader in moving:
                reader.person = elsewhere
            await ends(leaves)
            chunks = await settled(elsewhere, conversation, directory=stays.directory)
            terminal = chunks[the_end(chunks, run_id)]
            assert terminal["code"] == "interrupted"
            assert "restarted" in terminal["message"]
            assert [row.state for row in rows(stays.directory, conversation)] == ["interrupted"]
            assert view.text == said(chunks, run_id)
            for reader in moving:
                await reader.arrives(at=chunks)


async def test_who_leaves_takes_nothing_on(serve: Serve) -> None:
    server = serve(lease_seconds=60, DRAIN_SECONDS="30")
    async with Person(server.base) as person:
        other, untouched = await person.begin(), await person.begin()
        await asked(person, ENDLESS)
        server.terminate()

        async def refused() -> httpx.Response | None:
            response = await person.send(other, "words=1", id="m-1")
            return response if response.status_code == 503 else None

        refusal = await until(refused)
        assert int(refusal.headers["retry-after"]) >= 1
        assert "about to end" in refusal.json()["error"]
        assert (await person.send(untouched, "words=1", id="m-1")).status_code == 503
        assert (await person.hydrate(untouched))["messages"] == []
        server.terminate()  # in a hurry
        await ends(server)


@SERVERS
async def test_readers_of_an_idle_chat_are_let_go_in_order(serve: Serve, kind: Any) -> None:
    """Neither cut off, nor let go so soon that a client gives up, nor kept to the end of their minute."""
    server = serve(kind=kind)
    async with Person(server.base) as person:
        conversation = await person.begin()
        reader = DurableReader(person, conversation)
        await reader.connect()
        assert reader.caught_up
        async with socket(person, conversation) as connection:
            began = time.monotonic()
            reading = asyncio.create_task(reader.connect())
            await until(lambda: reader.cursor)
            server.terminate()
            await reading  # raises if it was cut off
            assert time.monotonic() - began > 1.0
            await connection.wait_closed()
            assert connection.close_code == 4503
        await ends(server)


def socket(person: Person, conversation: str) -> websockets.connect:
    cookie = "; ".join(f"{name}={value}" for name, value in person.http.cookies.items())
    return websockets.connect(
        f"{person.base.replace('http', 'ws', 1)}/ws/chat/{conversation}",
        additional_headers={"Cookie": cookie},
        origin=websockets.Origin(person.base),
        proxy=None,
    )


async def interrupted(leaves: LiveServer, stays: LiveServer, *, by: Callable[[], None]) -> None:
    """One server ends in the middle of an answer, which the other then ends."""
    async with Person(leaves.base) as person, person.at(stays.base) as elsewhere:
        conversation, run_id = await asked(person, ENDLESS)
        reader = DurableReader(person, conversation)
        async with following(reader):
            await until(lambda: words(10) in reader.text)
            by()
            await ends(leaves)
            reader.person = elsewhere
            chunks = await settled(elsewhere, conversation, directory=stays.directory)
            assert chunks[the_end(chunks, run_id)]["code"] == "interrupted"
            await reader.arrives(at=chunks)


async def test_where_no_handler_can_be_installed_the_lease_covers_it(serve: Serve) -> None:
    """Requests of a WSGI server run beside the main thread; it dies at once."""
    leaves, stays = serve(kind="wsgi"), serve()
    await interrupted(leaves, stays, by=leaves.terminate)


@pytest.mark.parametrize("kind", ["uvicorn", "daphne", "wsgi"])
async def test_a_process_that_is_interrupted_leaves_no_lease(serve: Serve, kind: Any) -> None:
    """Ctrl-C, or a reloader: whoever looks next need not wait for the lease, which is endless here."""
    leaves, stays = serve(kind=kind, lease_seconds=3600), serve(lease_seconds=3600)
    await interrupted(leaves, stays, by=leaves.interrupt)


async def test_the_command_that_recovers_ends_its_answers_as_servers_do(serve: Serve) -> None:
    """It has begun what waited behind a dead process's answer; it has a lease that nobody will wait for."""
    server = serve(WHEN_BUSY="queue", DRAIN_SECONDS="0.5", lease_seconds=2)
    async with Person(server.base) as person:
        conversation, _ = await asked(person, ENDLESS)
        assert (await person.send(conversation, ENDLESS, id="m-2")).status_code == 202
        await asyncio.to_thread(server.kill)
        env = server.environment | {"LEASE_SECONDS": "3600"}
        recovering = await asyncio.create_subprocess_exec(
            sys.executable, "manage.py", "durable_chat_recover", "--loop", cwd=ROOT, env=env
        )

        def begun() -> bool:
            states = [row.state for row in rows(server.directory, conversation)]
            return states == ["interrupted", "running"]

        await until(begun)
        recovering.terminate()
        await asyncio.wait_for(recovering.wait(), IN_TIME)
        await asyncio.to_thread(server.start)
        chunks = await settled(person, conversation, directory=server.directory)
        assert [row.state for row in rows(server.directory, conversation)] == ["interrupted", "interrupted"]
        assert "restarted" in chunks[-1]["message"]
