"""Fifty answers in flight when a server is killed with -9, ten times; in `make soak` thousands of times."""

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

from tests.clients.visitor import HERE as CLIENTS
from tests.faults.conftest import Serve
from tests.faults.evidence import rows, said, settled, words
from tests.faults.people import Person, Reader, asked, following, until
from tests.faults.readers import OF_CONVERSATION, OF_RUN, ended
from tests.live import LiveServer

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "10"))
RUNS = 50
LEASE_SECONDS = 2
TOLD_SECONDS = LEASE_SECONDS + 2  # after a death, until every reader has its terminal chunk
SCRIPT = "words=2000 delay=100"  # longer than anything here takes

T = TypeVar("T")


class Chat:
    """A conversation with an answer in flight, and those who read it."""

    def __init__(self, people: Sequence[Person], number: int, id: str, run_id: str) -> None:
        """Each server has half of the runs, each run two kinds of readers, one of them at either server."""
        self.id = id
        self.run_id = run_id
        self.home = number % 2
        other = (self.home + number // 2) % 2
        self.whole = _nth(OF_CONVERSATION, number)(people[self.home], id)
        self.view = _nth(OF_RUN, number)(people[other], id, run_id)
        self.whole.elsewhere = _round_robin(people, after=self.home)
        self.view.elsewhere = _round_robin(people, after=other)

    @property
    def readers(self) -> tuple[Reader, Reader]:
        return self.whole, self.view

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


async def test_every_reader_is_told_the_end(serve: Serve, packages: None) -> None:
    fate = random.Random(1066)
    servers = [serve(lease_seconds=LEASE_SECONDS) for _ in range(2)]
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(Person(servers[0].base))
        await first.begin()  # one session, which both know
        people = first, await stack.enter_async_context(first.at(servers[1].base))
        for _ in range(ROUNDS):
            await _death(servers, people, victim=fate.randrange(2), moment=fate.uniform(0, 1))


async def _death(
    servers: Sequence[LiveServer], people: Sequence[Person], *, victim: int, moment: float
) -> None:
    browsers = [Browser(person, kind) for person in people for kind in ("tanstack", "ai-sdk")]
    await asyncio.gather(*(browser.opens() for browser in browsers))
    begun = await asyncio.gather(*(asked(people[number % 2], SCRIPT) for number in range(RUNS)))
    chats = [Chat(people, number, *names) for number, names in enumerate(begun)]
    orphans = [chat for chat in chats if chat.home == victim]
    async with following(*(reader for chat in chats for reader in chat.readers)):
        await _all(chats, lambda reader: words(3) in reader.text)
        await asyncio.sleep(moment)  # at which word, and where in it, is up to fate
        servers[victim].kill()
        died = time.monotonic()
        restarting = asyncio.create_task(asyncio.to_thread(servers[victim].start))
        await _all(orphans, ended)
        assert time.monotonic() - died <= TOLD_SECONDS
        await restarting
        survivor, directory = people[1 - victim], servers[victim].directory
        states = await asyncio.gather(*(chat.stands(survivor, directory) for chat in chats))
        await asyncio.gather(*(browser.closes(directory) for browser in browsers))
    assert sorted(states) == ["interrupted"] * len(orphans) + ["stopped"] * (RUNS - len(orphans))


async def _all(chats: Sequence[Chat], probe: Callable[[Reader], bool]) -> None:
    """Until it is true of every reader of these."""
    readers = [reader for chat in chats for reader in chat.readers]
    await asyncio.gather(*(until(partial(probe, reader)) for reader in readers))


def _nth(kinds: Mapping[str, T], number: int) -> T:
    return list(kinds.values())[number % len(kinds)]


def _round_robin(people: Sequence[Person], *, after: int) -> Iterator[Person]:
    return cycle([*people[after + 1 :], *people[: after + 1]])
