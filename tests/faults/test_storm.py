"""Fifty answers in flight when a server and a worker die by -9; in `make soak` thousands of times."""

import asyncio
import json
import os
import random
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TypeVar

import pytest

from tests.clients.visitor import HERE as CLIENTS
from tests.faults.conftest import Serve
from tests.faults.evidence import rows, said, settled, words
from tests.faults.people import Person, Reader, asked, following, until
from tests.faults.readers import OF_CONVERSATION, OF_RUN, ended
from tests.live import LiveServer
from tests.tasks.workers import Worker, environment, new_queue, why_not

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "10"))
RUNS = 50  # in the processes of two servers; and one more for each worker of a third
WORKERS = 3
LEASE_SECONDS = 5  # while two servers start, a slow machine beats no heart for two seconds or three
TOLD_SECONDS = LEASE_SECONDS + 2  # after a death, until every reader has its terminal chunk
SCRIPT = (
    "words=2000 delay=200"  # longer than anything here takes, and light: it is about deaths, not about load
)

T = TypeVar("T")


class Chat:
    """A conversation with an answer in flight, and those who read it."""

    def __init__(self, people: Sequence[Person], number: int, id: str, run_id: str, *, home: int) -> None:
        """Each run has two kinds of readers, one of them at any server."""
        self.id = id
        self.run_id = run_id
        self.home = home
        other = (home + number // 2) % len(people)
        self.whole = _nth(OF_CONVERSATION, number)(people[home], id)
        self.view = _nth(OF_RUN, number)(people[other], id, run_id)
        self.whole.elsewhere = _round_robin(people, after=home)
        self.view.elsewhere = _round_robin(people, after=other)

    @property
    def readers(self) -> tuple[Reader, Reader]:
        return self.whole, self.view

    @property
    def is_over(self) -> bool:
        return all(ended(reader) for reader in self.readers)

    async def stands(self, person: Person, directory: Path) -> str:
        """Everything holds of the first answer, and the next one comes; how the first ended.

        Those of the server that lives are stopped, by way of whichever lives.
        """
        await person.stop(self.id)
        chunks = await settled(person, self.id, directory=directory)
        await self.view.arrives()
        assert self.view.text == said(chunks, self.run_id)
        assert (await person.send(self.id, "words=3", id="m-2")).status_code == 202
        await self.whole.arrives(at=await settled(person, self.id, directory=directory))
        first, second = rows(directory, self.id)
        assert second.state == "done"
        return first.state


class Browser:
    """A published client in node, on a conversation of its own, that asks again when its answer has ended."""

    def __init__(self, person: Person, kind: str) -> None:
        self.person = person
        self.kind = kind
        self.id = ""
        self._process: Process | None = None

    async def opens(self) -> None:
        """Returns when the answer is being written."""
        self.id = await self.person.begin()
        given = {
            "base": self.person.base,
            "id": self.id,
            "by": self.kind,
            "prompt": SCRIPT,
            "next": "words=3",
        }
        given |= {"cookie": self.person.cookie, "csrf": self.person.http.cookies["csrftoken"]}
        self._process = await asyncio.create_subprocess_exec(
            "node", "drivers/killed.mjs", json.dumps(given), cwd=CLIENTS, stdout=PIPE
        )
        await until(self._is_answered)

    async def _is_answered(self) -> bool:
        chunks, _ = await self.person.transcript(self.id)
        return any(chunk.get("delta") == "w2 " for chunk in chunks)

    async def closes(self, directory: Path) -> None:
        """It showed what the log says, never took a word back, and its second question was answered."""
        assert self._process is not None
        await self.person.stop(self.id)
        output, _ = await self._process.communicate()
        told = json.loads(output)
        assert "failure" not in told, (self.kind, told["failure"], rows(directory, self.id))
        chunks = await settled(self.person, self.id, directory=directory)
        first, second = rows(directory, self.id)
        shown = [m["text"] for m in told["messages"] if m["role"] == "assistant"]
        assert shown == [said(chunks, first.id), words(3)]
        assert second.state == "done"
        assert told["rewinds"] == []


@pytest.fixture
def desk(serve: Serve) -> Iterator[tuple[LiveServer, Sequence[Worker]]]:
    """A third server on the same files, whose answers are written by workers."""
    if reason := why_not("database"):
        pytest.skip(reason)
    queue = new_queue()
    server = serve(lease_seconds=LEASE_SECONDS, **environment("database", queue))
    workers = [Worker(server, "database", queue) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    yield server, workers
    for worker in workers:
        worker.kill()


async def test_every_reader_is_told_the_end(
    desk: tuple[LiveServer, Sequence[Worker]], serve: Serve, packages: None
) -> None:
    fate = random.Random(1066)
    servers = [*(serve(lease_seconds=LEASE_SECONDS) for _ in range(2)), desk[0]]
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(Person(servers[0].base))
        await first.begin()  # one session, which all know
        others = [await stack.enter_async_context(first.at(server.base)) for server in servers[1:]]
        for _ in range(ROUNDS):
            victim, moment = fate.randrange(2), fate.uniform(0, 1)
            dying = servers[victim], fate.choice(desk[1])
            await _death(dying, [first, *others], victim=victim, moment=moment)


async def _death(
    dying: tuple[LiveServer, Worker], people: Sequence[Person], *, victim: int, moment: float
) -> None:
    browsers = [Browser(person, kind) for person in people[:2] for kind in ("tanstack", "ai-sdk")]
    await asyncio.gather(*(browser.opens() for browser in browsers))
    homes = [*(number % 2 for number in range(RUNS)), *(2 for _ in range(WORKERS))]
    begun = await asyncio.gather(*(asked(people[home], SCRIPT) for home in homes))
    chats = [Chat(people, number, *begun[number], home=home) for number, home in enumerate(homes)]
    orphans = [chat for chat in chats if chat.home == victim]
    async with following(*(reader for chat in chats for reader in chat.readers)):
        await _all(chats, lambda reader: words(3) in reader.text)
        await asyncio.sleep(moment)  # at which word, and where in it, is up to fate
        await asyncio.gather(*(asyncio.to_thread(process.kill) for process in dying))
        died = time.monotonic()
        restarting = [asyncio.create_task(asyncio.to_thread(process.start)) for process in dying]
        await _all(orphans, ended)
        await until(lambda: any(chat.is_over for chat in chats[RUNS:]))  # whichever that worker had
        assert time.monotonic() - died <= TOLD_SECONDS
        await asyncio.gather(*restarting)
        survivor, directory = people[1 - victim], dying[0].directory
        states = await asyncio.gather(*(chat.stands(survivor, directory) for chat in chats))
        await asyncio.gather(*(browser.closes(directory) for browser in browsers))
    interrupted = len(orphans) + 1
    assert sorted(states) == ["interrupted"] * interrupted + ["stopped"] * (len(chats) - interrupted)


async def _all(chats: Sequence[Chat], probe: Callable[[Reader], bool]) -> None:
    """Until it is true of every reader of these."""
    readers = [reader for chat in chats for reader in chat.readers]
    await asyncio.gather(*(until(partial(probe, reader)) for reader in readers))


def _nth(kinds: Mapping[str, T], number: int) -> T:
    return list(kinds.values())[number % len(kinds)]


def _round_robin(people: Sequence[Person], *, after: int) -> Iterator[Person]:
    return cycle([*people[after + 1 :], *people[: after + 1]])
