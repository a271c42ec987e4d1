"""A server that kills itself at a named point of a run's life, and another that finds what it has left."""

import asyncio
from contextlib import suppress

import httpx
import pytest

from tests.faults.conftest import Serve
from tests.faults.evidence import echoes, rows, said, settled, words
from tests.faults.people import DurableReader, Person, SocketReader, following, until
from tests.live import LiveServer

RUNS = "durable_chat.runs"
PRODUCER = "durable_chat.streams.client.Producer"
ASKED = "words=9"

# where it dies -> the states of the runs that are found, and the messages that were said
POINTS = {
    "in the claim": (f"{RUNS}.admission.begin:after", [], []),
    "between claim and echo": (f"{RUNS}.launch.admit:after", ["interrupted"], []),
    "between echo and its row": (f"{RUNS}.progress.accepted:before", ["interrupted"], ["m-1"]),
    "between echo and RUN_STARTED": (f"{RUNS}.progress.accepted:after", ["interrupted"], ["m-1"]),
    "before the first word": (f"{PRODUCER}.add:before", ["interrupted"], ["m-1"]),
    "in mid run": (f"{PRODUCER}.add:before:6", ["interrupted"], ["m-1"]),
    "before the last batch": (f"{RUNS}.progress.end:after", ["interrupted"], ["m-1"]),
    "between terminal chunk and release": (f"{RUNS}.progress.release:before", ["done"], ["m-1"]),
    "after the release": (f"{RUNS}.progress.release:after", ["done"], ["m-1"]),
}
RECOVERING = ["recover.take_over:after", "progress.repair:before", "progress.repair:after"]
BEGINNING = ["launch.next_in_line:after:2", "progress.accepted:before:2"]


@pytest.mark.parametrize("point", POINTS)
async def test_a_process_that_dies(serve: Serve, point: str) -> None:
    """Readers are at another, whose sweep finds what is left: it began with their first request."""
    path, states, echoed = POINTS[point]
    dies, stays = serve(kind="mortal", DIE_AT=path), serve()
    async with Person(dies.base) as person, person.at(stays.base) as elsewhere:
        conversation = await person.begin()
        readers = [kind(elsewhere, conversation) for kind in (DurableReader, SocketReader)]
        async with following(*readers):
            await _asks_and_dies(dies, person, conversation)
            await until(lambda: all(row.ended for row in rows(stays.directory, conversation)))
            chunks = await settled(elsewhere, conversation, directory=stays.directory)
            assert [row.state for row in rows(stays.directory, conversation)] == states
            assert echoes(chunks) == echoed
            assert (await elsewhere.send(conversation, ASKED, id="m-2")).status_code == 202
            chunks = await settled(elsewhere, conversation, directory=stays.directory)
            assert said(chunks, rows(stays.directory, conversation)[-1].id) == words(9)
            for reader in readers:
                await reader.arrives(at=chunks)


async def _asks_and_dies(server: LiveServer, person: Person, conversation: str) -> None:
    with suppress(httpx.TransportError):
        await person.send(conversation, ASKED, id="m-1")
    await until(server.died)


@pytest.mark.parametrize("point", RECOVERING)
async def test_a_recoverer_that_dies_is_recovered(serve: Serve, point: str) -> None:
    first = serve()
    async with Person(first.base) as person:
        conversation = await person.begin()
        assert (await person.send(conversation, "words=400 delay=10", id="m-1")).status_code == 202
        first.kill()
        second = serve(kind="mortal", DIE_AT=f"{RUNS}.{point}")
        async with person.at(second.base) as there:
            with suppress(httpx.TransportError):
                await there.hydrate(conversation)
            await until(second.died)
        third = serve()
        async with person.at(third.base) as elsewhere:
            await settled(elsewhere, conversation, directory=third.directory)
            assert [row.state for row in rows(third.directory, conversation)] == ["interrupted"]


@pytest.mark.parametrize("point", BEGINNING)
async def test_a_message_that_waits_survives_whoever_begins_it(serve: Serve, point: str) -> None:
    """Its send was answered, so it is answered: its turn comes again, and its echo is there once."""
    dies = serve(kind="mortal", DIE_AT=f"{RUNS}.{point}", WHEN_BUSY="queue")
    async with Person(dies.base) as person:
        conversation = await person.begin()
        assert (await person.send(conversation, "words=20 delay=20", id="m-1")).status_code == 202
        sends = (person.send(conversation, f"words={n}", id=f"m-{n}") for n in (2, 3))
        assert {sent.status_code for sent in await asyncio.gather(*sends)} == {202}
        await until(dies.died)
        stays = serve(WHEN_BUSY="queue")
        async with person.at(stays.base) as elsewhere:
            await elsewhere.hydrate(conversation)
            await until(lambda: [row.state for row in rows(stays.directory, conversation)] == ["done"] * 3)
            chunks = await settled(elsewhere, conversation, directory=stays.directory)
            assert sorted(echoes(chunks)) == ["m-1", "m-2", "m-3"]
