"""Two processes that send to the same conversation at once, a thousand times."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults.conftest import Serve
from tests.faults.evidence import echoes, rows
from tests.faults.people import Person
from tests.live import ROOT, LiveServer

ROUNDS = 1000
LOOKED_AT = 20  # whose streams are read, too

pytestmark = pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)


@asynccontextmanager
async def sender(server: LiveServer) -> AsyncIterator[Process]:
    command = [sys.executable, "-m", "tests.faults.sender"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=server.environment, stdin=PIPE, stdout=PIPE
    )
    try:
        assert await _line(process) == "ready"
        yield process
    finally:
        process.kill()
        await process.wait()


async def _line(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def _send(process: Process, conversation: str, id: str) -> list[str]:
    assert process.stdin is not None
    process.stdin.write(f"{conversation} {id}\n".encode())
    return (await _line(process)).split()


async def test_one_of_two_that_send_at_once_begins(serve: Serve) -> None:
    """Every second time with the same message: then both have the one run, else the other learns its name."""
    server = serve(lease_seconds=600)
    async with Person(server.base) as person, sender(server) as one, sender(server) as other:
        begun = [await person.begin() for _ in range(ROUNDS)]
        for number, conversation in enumerate(begun):
            ids = ("m-1", "m-1") if number % 2 else ("m-1", "m-2")
            sends = (_send(process, conversation, id) for process, id in zip((one, other), ids, strict=True))
            told = await asyncio.gather(*sends)
            assert sorted(kind for kind, _ in told) == (["run", "run"] if number % 2 else ["busy", "run"])
            assert told[0][1] == told[1][1]
            [run] = rows(server.directory, conversation)
            assert (run.id, run.state) == (told[0][1], "running")
        for conversation in begun[:LOOKED_AT]:
            chunks, _ = await person.transcript(conversation)
            assert len(echoes(chunks)) == 1
            assert [chunk["type"] for chunk in chunks].count("RUN_STARTED") == 1
