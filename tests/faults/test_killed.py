"""A server killed for real, again and again: every reader goes on, and every run has one end."""

import asyncio
import random
from contextlib import suppress

import httpx

from tests.faults.conftest import Serve
from tests.faults.evidence import echoes, rows, said, settled, the_end, words
from tests.faults.people import DurableReader, Person, Reader, SocketReader, asked, following, until
from tests.live import LiveServer

LONG = "words=400 delay=10"
DEATHS = 8
LIVES = 6  # at each death
LIFE_SECONDS = 0.4


async def test_every_reader_goes_on_where_it_was(server: LiveServer, person: Person) -> None:
    """Three answers, nine readers, and the server dies in the middle."""
    runs = [await asked(person, LONG) for _ in range(3)]
    whole = [kind(person, conversation) for conversation, _ in runs for kind in (DurableReader, SocketReader)]
    views = [DurableReader(person, conversation, run=run_id) for conversation, run_id in runs]
    async with following(*whole, *views):
        await until(lambda: all(words(20) in reader.text for reader in (*whole, *views)))
        server.kill()
        await restart(server)
        for (conversation, run_id), view in zip(runs, views, strict=True):
            chunks = await settled(person, conversation, directory=server.directory)
            assert chunks[the_end(chunks, run_id)]["code"] == "interrupted"
            await view.arrives()
            assert view.text == said(chunks, run_id)
            assert [item["type"] for item in view.items[-2:]] == ["finish-step", "error"]
        for conversation, _ in runs:
            assert (await person.send(conversation, "words=3", id="m-2")).status_code == 202
            chunks = await settled(person, conversation, directory=server.directory)
            assert [row.state for row in rows(server.directory, conversation)] == ["interrupted", "done"]
            for reader in whole:
                if reader.conversation == conversation:
                    await reader.arrives(at=chunks)


async def test_whichever_door_is_knocked_at_first(serve: Serve) -> None:
    """Nobody was reading when the server died, nor when the leases ran out, and no process sweeps."""
    server = serve(SWEEP_SECONDS="0")
    async with Person(server.base) as person:
        await _each_door_recovers(server, person)


async def _each_door_recovers(server: LiveServer, person: Person) -> None:
    runs = {door: await asked(person, LONG) for door in DOORS}
    await until(lambda: _all_are_being_written(person, [conversation for conversation, _ in runs.values()]))
    server.kill()
    await restart(server)
    for door, (conversation, run_id) in runs.items():
        await until(lambda conversation=conversation: rows(server.directory, conversation)[0].lapsed)
        await _knock(door, person, conversation, run_id)
        assert rows(server.directory, conversation)[0].state == "interrupted"
        await settled(person, conversation, directory=server.directory)


DOORS = ("hydration", "transcript", "run", "socket", "reconnect", "stop", "send", "submit")


async def _knock(door: str, person: Person, conversation: str, run_id: str) -> None:
    """Once. The door answers as if the run that died had ended in order."""
    match door:
        case "hydration":
            assert await person.active(conversation) is None
        case "transcript":
            the_end((await person.transcript(conversation))[0], run_id)
        case "run":
            await _ends(DurableReader(person, conversation, run=run_id))
        case "socket":
            await _ends(SocketReader(person, conversation))
        case "reconnect":
            assert (await person.reconnect(conversation)).status_code == 204
        case "stop":
            assert (await person.stop(conversation)).status_code == 204
        case "send":
            assert (await person.send(conversation, "words=3", id="m-2")).status_code == 202
        case "submit":
            assert (await person.submit(conversation, "words=3", id="m-2")).status_code == 201


async def _ends(reader: Reader) -> None:
    async with following(reader):
        await until(lambda: any(item["type"] in ("RUN_ERROR", "error") for item in reader.items))


async def _all_are_being_written(person: Person, conversations: list[str]) -> bool:
    transcripts = [await person.transcript(conversation) for conversation in conversations]
    return all(any(chunk.get("delta") == "w1 " for chunk in chunks) for chunks, _ in transcripts)


class Life:
    """A conversation that is begun, asked and answered while the server may die at any moment of it."""

    def __init__(self, person: Person, id: str, *, kind: type[Reader]) -> None:
        self.id = id
        self.accepted = False
        self.reader = kind(person, id)
        self._begun = asyncio.Event()
        self._person = person

    async def follow(self) -> None:
        await self._begun.wait()
        await self.reader.follow()

    async def passes(self, *, after: float) -> None:
        await asyncio.sleep(after)
        with suppress(httpx.TransportError):
            await self.begins()
            await self.asks()

    async def begins(self) -> None:
        await self._person.begin(self.id)
        self._begun.set()

    async def asks(self) -> None:
        sent = await self._person.send(self.id, "words=20 delay=8", id="m-1")
        assert sent.status_code == 202
        self.accepted = True


async def test_killed_at_any_moment(server: LiveServer, person: Person) -> None:
    """Each death meets several runs, each at another moment of its life."""
    fate = random.Random(1831)
    for death in range(DEATHS):
        lives = [
            Life(person, f"life-{death}-{n}", kind=(DurableReader, SocketReader)[n % 2]) for n in range(LIVES)
        ]
        async with following(*lives):
            passing = [life.passes(after=fate.uniform(0, LIFE_SECONDS)) for life in lives]
            await asyncio.gather(*passing, _death(server))
            await restart(server)
            for life in lives:
                await _goes_on(life, person, server)


async def _death(server: LiveServer) -> None:
    await asyncio.sleep(LIFE_SECONDS)
    server.kill()


async def _goes_on(life: Life, person: Person, server: LiveServer) -> None:
    """What was acknowledged is there; what was not is sent again, as clients do, and then is there once."""
    await life.begins()
    chunks = await settled(person, life.id, directory=server.directory)
    said_once = ["m-1"]
    if life.accepted:
        assert echoes(chunks) == said_once
        assert (await person.send(life.id, "words=3", id="m-2")).status_code == 202
        said_once += ["m-2"]
    else:
        await life.asks()
    chunks = await settled(person, life.id, directory=server.directory)
    assert echoes(chunks) == said_once
    assert rows(server.directory, life.id)[-1].state == "done"
    await life.reader.arrives(at=chunks)


async def test_a_deploy_in_mid_answer(server: LiveServer, person: Person) -> None:
    """SIGTERM: the server ends although people are reading, and leaves what the next one can finish."""
    conversation, run_id = await asked(person, LONG)
    readers = DurableReader(person, conversation), SocketReader(person, conversation)
    view = DurableReader(person, conversation, run=run_id)
    async with following(*readers, view):
        await until(lambda: all(words(20) in reader.text for reader in (*readers, view)))
        assert await asyncio.to_thread(server.end)
        await restart(server)
        chunks = await settled(person, conversation, directory=server.directory)
        await view.arrives()
        assert view.text == said(chunks, run_id)
        assert (await person.send(conversation, "words=3", id="m-2")).status_code == 202
        chunks = await settled(person, conversation, directory=server.directory)
        for reader in readers:
            await reader.arrives(at=chunks)


async def test_a_short_lease_does_not_cost_a_run_that_is_well(server: LiveServer, person: Person) -> None:
    """Whoever looks finds it alive, however often they look."""
    conversation, _ = await asked(person, "words=100 delay=20")
    await settled(person, conversation, directory=server.directory)
    assert [row.state for row in rows(server.directory, conversation)] == ["done"]


async def restart(server: LiveServer) -> None:
    """On the same files and port, while readers knock in vain."""
    await asyncio.to_thread(server.start)


async def test_what_nobody_looks_at_is_ended_by_the_sweep(serve: Serve) -> None:
    """Somebody visits the site, but none of the conversations that its dead process has left."""
    server = serve()
    async with Person(server.base) as person:
        left = [await asked(person, LONG) for _ in range(3)]
        server.kill()
        await restart(server)
        await person.hydrate(await person.begin())
        for conversation, _ in left:
            await until(lambda c=conversation: rows(server.directory, c)[0].state == "interrupted")
            await settled(person, conversation, directory=server.directory)
