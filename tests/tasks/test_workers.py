"""LAUNCHER = "tasks": the web process takes the question, a worker writes the answer, whoever dies."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.evidence import rows, said, settled, the_end, words
from tests.faults.people import DurableReader, Person, SocketReader, following, until
from tests.live import ROOT, LiveServer
from tests.tasks.workers import Kept, Worker, environment, forget, new_queue, why_not


@dataclass(frozen=True, slots=True)
class Site:
    """A server that writes no answers, and the worker that does; it is not running yet."""

    kept: Kept
    queue: str
    server: LiveServer
    worker: Worker

    @property
    def directory(self) -> Path:
        return self.server.directory

    def state(self, conversation: str) -> str:
        return rows(self.directory, conversation)[-1].state

    def delivers_again(self, run_id: str) -> None:
        self.runs(f"from durable_chat.runs.tasks import answer; answer.enqueue({run_id!r})")

    def runs(self, statements: str) -> None:
        command = [sys.executable, "manage.py", "shell", "--command", statements]
        subprocess.run(command, cwd=ROOT, env=self.server.environment, capture_output=True, check=True)


SOON = pytest.mark.parametrize("env", [{"TASKS_AGAIN_SECONDS": "1"}])


@pytest.fixture
def env() -> dict[str, str]:
    """What a test sets besides."""
    return {}


@pytest.fixture(params=["database", "redis"])
def site(request: pytest.FixtureRequest, tmp_path: Path, env: dict[str, str]) -> Iterator[Site]:
    kept: Kept = request.param
    if reason := why_not(kept):
        pytest.skip(reason)
    queue = new_queue()
    server = LiveServer(tmp_path, env={"LEASE_SECONDS": "1", **environment(kept, queue), **env})
    worker = Worker(server, kept, queue)
    server.migrate()
    try:
        server.start()
        yield Site(kept, queue, server, worker)
    finally:
        server.kill()
        worker.kill()
        forget(kept, queue, directory=tmp_path)


@pytest.fixture
async def person(site: Site) -> AsyncIterator[Person]:
    async with Person(site.server.base) as person:
        yield person


async def asked(person: Person, text: str) -> str:
    conversation = await person.begin()
    assert (await person.send(conversation, text, id="m-1")).status_code == 202
    return conversation


async def test_a_worker_answers_what_the_server_accepted(site: Site, person: Person) -> None:
    conversation = await asked(person, "words=100 delay=5")
    await until(lambda: site.state(conversation) == "accepted")
    readers = [DurableReader(person, conversation), SocketReader(person, conversation)]
    async with following(*readers):
        await until(lambda: all("RUN_STARTED" in str(reader.items) for reader in readers))
        site.worker.start()
        chunks = await settled(person, conversation, directory=site.directory)
        assert [row.state for row in rows(site.directory, conversation)] == ["done"]
        assert (await person.send(conversation, "words=3", id="m-2")).status_code == 202
        chunks = await settled(person, conversation, directory=site.directory)
        for reader in readers:
            await reader.arrives(at=chunks)
    assert await asyncio.to_thread(site.worker.end)


@pytest.mark.parametrize("env", [{"WHEN_BUSY": "queue"}])
async def test_who_waits_in_line_is_answered_by_a_worker_in_turn(site: Site, person: Person) -> None:
    conversation = await asked(person, "words=5")
    for id, question in (("m-2", "words=6"), ("m-3", "words=7")):
        assert (await person.send(conversation, question, id=id)).status_code == 202
    site.worker.start()

    async def all_answered() -> bool:
        return all(row.state == "done" for row in rows(site.directory, conversation))

    await until(all_answered)
    chunks = await settled(person, conversation, directory=site.directory)
    told = [said(chunks, row.id) for row in rows(site.directory, conversation)]
    assert told == [words(5), words(6), words(7)]


async def test_an_answer_is_stopped_before_and_while_a_worker_writes_it(site: Site, person: Person) -> None:
    conversation = await asked(person, "words=5000 delay=20")
    assert (await person.stop(conversation)).status_code == 202
    chunks = await settled(person, conversation, directory=site.directory)
    assert [chunk.get("code") for chunk in chunks if chunk["type"] == "RUN_ERROR"] == ["stopped"]
    site.worker.start()
    assert (await person.send(conversation, "words=5000 delay=20", id="m-2")).status_code == 202
    reader = DurableReader(person, conversation)
    async with following(reader):
        await until(lambda: words(10) in reader.text)
        assert (await person.stop(conversation)).status_code == 202
        await settled(person, conversation, directory=site.directory)
    assert [row.state for row in rows(site.directory, conversation)] == ["stopped", "stopped"]


async def test_a_worker_that_is_killed_is_recovered_and_its_task_finds_nothing_to_do(
    site: Site, person: Person
) -> None:
    site.worker.start()
    conversation = await asked(person, "words=5000 delay=20")
    reader = DurableReader(person, conversation)
    async with following(reader):
        await until(lambda: words(10) in reader.text)
        await asyncio.to_thread(site.worker.kill)
        chunks = await settled(person, conversation, directory=site.directory)
        (run,) = rows(site.directory, conversation)
        assert chunks[the_end(chunks, run.id)]["code"] == "interrupted"
        site.delivers_again(run.id)
        site.worker.start()
        assert (await person.send(conversation, "words=3", id="m-2")).status_code == 202
        chunks = await settled(person, conversation, directory=site.directory)
        await reader.arrives(at=chunks)
    assert said(chunks, rows(site.directory, conversation)[-1].id) == words(3)


async def test_a_task_delivered_twice_answers_once(site: Site, person: Person) -> None:
    conversation = await asked(person, "words=50 delay=10")
    await until(lambda: site.state(conversation) == "accepted")
    (run,) = rows(site.directory, conversation)
    site.delivers_again(run.id)
    other = Worker(site.server, site.kept, site.queue)
    try:
        site.worker.start()
        other.start()
        chunks = await settled(person, conversation, directory=site.directory)
    finally:
        other.kill()
    assert said(chunks, run.id) == words(50)
    assert sum(chunk["type"] == "RUN_STARTED" for chunk in chunks) == 1


@SOON
async def test_a_task_that_is_lost_is_given_out_again(site: Site, person: Person) -> None:
    conversation = await asked(person, "words=3")
    await until(lambda: site.state(conversation) == "accepted")
    forget(site.kept, site.queue, directory=site.directory)
    site.worker.start()
    chunks = await settled(person, conversation, directory=site.directory)
    assert said(chunks, rows(site.directory, conversation)[0].id) == words(3)


async def test_a_worker_that_is_about_to_end_leaves_its_task_to_another(site: Site, person: Person) -> None:
    conversation = await asked(person, "words=3")
    await until(lambda: site.state(conversation) == "accepted")
    forget(site.kept, site.queue, directory=site.directory)
    (run,) = rows(site.directory, conversation)
    site.runs(
        "from durable_chat.streams.departure import departure; departure.begun = True\n"
        f"from durable_chat.runs.tasks import answer; answer.call({run.id!r})"
    )
    assert site.state(conversation) == "accepted"
    site.worker.start()
    chunks = await settled(person, conversation, directory=site.directory)
    assert said(chunks, run.id) == words(3)


@SOON
async def test_without_workers_the_server_answers_what_was_left_to_them(site: Site, person: Person) -> None:
    """The host has changed its mind: nobody waits for ever."""
    conversation = await asked(person, "words=3")
    await until(lambda: site.state(conversation) == "accepted")
    server = LiveServer(site.directory, env={"LEASE_SECONDS": "1", "TASKS_AGAIN_SECONDS": "1"})
    server.start()
    try:
        async with person.at(server.base) as elsewhere:
            chunks = await settled(elsewhere, conversation, directory=site.directory)
    finally:
        server.kill()
    assert said(chunks, rows(site.directory, conversation)[0].id) == words(3)


@pytest.mark.parametrize("site", ["database"], indirect=True)  # rq waits for the answer instead
async def test_a_worker_that_is_told_to_end_ends_its_answer_in_order(site: Site, person: Person) -> None:
    site.worker.start()
    conversation = await asked(person, "words=5000 delay=20")
    reader = DurableReader(person, conversation)
    async with following(reader):
        await until(lambda: words(10) in reader.text)
        assert await asyncio.to_thread(site.worker.end), site.worker.said
        chunks = await settled(person, conversation, directory=site.directory)
    (run,) = rows(site.directory, conversation)
    terminal: dict[str, Any] = chunks[the_end(chunks, run.id)]
    assert (run.state, terminal["code"]) == ("interrupted", "interrupted")
    assert "restarted" in terminal["message"]
