"""Runs whose process died at a named point: one terminal chunk, the partial answer kept, the chat goes on."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import InterfaceError

from durable_chat import backends
from durable_chat.answers import Answer
from durable_chat.chunks import is_terminal
from durable_chat.connections import in_database
from durable_chat.messages import Message, Turn, fold
from durable_chat.models import Run
from durable_chat.runs import heart, launch, loop, progress
from durable_chat.runs.admission import admit
from durable_chat.runs.claim import Claim, Fenced, take_over
from durable_chat.runs.execute import PRODUCER_ID
from durable_chat.runs.recover import recover
from durable_chat.streams.client import Producer
from durable_chat.streams.protocol.errors import StaleEpoch
from tests.conftest import Chatter, stored, the_run, words
from tests.faults.people import until

ASKED = Message(id="m-1", role="user", parts=({"type": "text", "content": "words=3"},))


class Doomed:
    """A process that takes the steps of a run one by one, and dies after any of them."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.producer = Producer(backends.get_streams(), claim.stream_path, id=PRODUCER_ID, epoch=claim.epoch)
        self.answer = Answer(thread_id=claim.conversation_id, run_id=claim.run_id)
        self.offset = claim.offset

    async def claimed(self) -> None:
        """Died before its first append."""

    async def echoed(self) -> None:
        self.offset = await self.producer.append(self.claim.opening)

    async def accepted(self) -> None:
        await self.echoed()
        await in_database(progress.accepted, self.claim, self.offset)

    async def started(self) -> None:
        await self.accepted()
        await self.producer.append([self.answer.started()])

    async def writing(self) -> None:
        await self.started()
        for item in ("w0 ", "w1 "):
            await self._say(self.answer.chunks(item))

    async def finished(self) -> None:
        await self.writing()
        await self.finished_writing()

    async def finished_writing(self) -> None:
        await self._say(self.answer.chunks("w2 "))
        await in_database(progress.end, self.claim)
        await self.producer.append([*self.answer.close(""), self.answer.finished()])

    async def uses(self, usage: Any) -> None:
        await self._say(self.answer.chunks({"type": "RUN_FINISHED", "usage": usage}))

    async def _say(self, chunks: list[Any]) -> None:
        for chunk in chunks:
            self.answer.stored(chunk)
        await self.producer.append(chunks)

    async def dies(self) -> None:
        await in_database(progress.abandon, self.claim)


async def doomed(conversation_id: str, point: str) -> Doomed:
    turn = Turn(ASKED, "send", {}, "tanstack")
    claim = await in_database(
        admit, conversation_id, turn, holder="doomed", lease_seconds=30, when_busy="reject"
    )
    assert isinstance(claim, Claim)
    process = Doomed(claim)
    step: Callable[[], Awaitable[None]] = getattr(process, point)
    await step()
    return process


POINTS = {
    "claimed": [],
    "echoed": [("user", "words=3")],
    "accepted": [("user", "words=3")],
    "started": [("user", "words=3"), ("assistant", "")],
    "writing": [("user", "words=3"), ("assistant", words(2))],
    "finished": [("user", "words=3"), ("assistant", words(3))],
}


@pytest.mark.parametrize("point", POINTS)
async def test_whoever_looks_next_finishes_the_log(chatter: Chatter, point: str) -> None:
    process = await doomed(chatter.id, point)
    await process.dies()
    assert await chatter.texts() == POINTS[point]
    run = await the_run(chatter.id)
    assert run.state == ("done" if point == "finished" else "interrupted")
    hydrated = await chatter.hydrate()
    assert hydrated["activeRun"] is None
    chunks = await stored(chatter.id, until=hydrated["offset"])
    assert [is_terminal(chunk, run.pk) for chunk in chunks].count(True) == 1
    assert [(m.id, list(m.parts)) for m in fold(chunks)] == [
        (m["id"], m["parts"]) for m in hydrated["messages"]
    ]


@pytest.mark.parametrize("point", POINTS)
async def test_the_next_send_works(chatter: Chatter, point: str) -> None:
    process = await doomed(chatter.id, point)
    await process.dies()
    assert (await chatter.send("words=3", id="m-1")).status_code == 202
    await chatter.idle()
    assert await chatter.texts() == [("user", "words=3"), ("assistant", words(3))]
    assert (await chatter.send("words=1")).status_code == 202


@pytest.mark.parametrize("point", [*POINTS][1:])
async def test_the_zombie_is_fenced_by_the_stream_itself(chatter: Chatter, point: str) -> None:
    process = await doomed(chatter.id, point)
    await process.dies()
    before = await chatter.hydrate()
    with pytest.raises(StaleEpoch):
        await process.producer.append([{"type": "CUSTOM", "name": "zombie", "value": None}])
    with pytest.raises(Fenced):
        await in_database(
            progress.release, process.claim, Run.State.DONE, process.offset, messages=process.answer.messages
        )
    assert await chatter.hydrate() == before


async def test_a_run_with_a_lease_is_left_alone(chatter: Chatter) -> None:
    await doomed(chatter.id, "writing")
    hydrated = await chatter.hydrate()
    assert hydrated["activeRun"] is not None
    refused = await chatter.send("words=1")
    assert refused.status_code == 409


async def test_two_recoverers_do_it_once(chatter: Chatter) -> None:
    process = await doomed(chatter.id, "writing")
    await process.dies()
    run_id = process.claim.run_id
    done = await asyncio.gather(*(loop.call(recover, chatter.id, holder=f"r{n}") for n in range(5)))
    assert [claim.run_id for claim in done if claim] == [run_id]
    chunks = await chatter.chunks()
    assert [is_terminal(chunk, run_id) for chunk in chunks].count(True) == 1


async def test_a_recoverer_that_dies_is_recovered(chatter: Chatter) -> None:
    process = await doomed(chatter.id, "writing")
    await process.dies()
    second = await in_database(take_over, chatter.id, holder="second", lease_seconds=30)
    assert second is not None
    await in_database(progress.abandon, second)
    assert await chatter.texts() == POINTS["writing"]
    assert (await the_run(chatter.id)).state == "interrupted"


async def test_hydration_tells_why_the_last_answer_is_not_whole(chatter: Chatter) -> None:
    process = await doomed(chatter.id, "writing")
    await process.dies()
    failure = (await chatter.hydrate())["failure"]
    assert failure == {"runId": process.claim.run_id, "error": (await chatter.chunks())[-1]["message"]}
    await chatter.send("words=2")
    await chatter.idle()
    assert (await chatter.hydrate())["failure"] is None
    await chatter.send("error please")
    await chatter.idle()
    assert (await chatter.hydrate())["failure"]["error"] == (await chatter.chunks())[-1]["message"]


async def test_a_stop_reaches_a_run_of_another_process_by_its_flag(chatter: Chatter) -> None:
    process = await doomed(chatter.id, "writing")
    assert (await chatter.post(f"/api/chat/{chatter.id}/stop", {})).status_code == 202
    run_id, epoch = process.claim.run_id, process.claim.epoch
    told = await in_database(progress.beat, {run_id: epoch}, holder="doomed", lease_seconds=30)
    assert told == ({run_id}, {run_id})
    for epochs, holder in (({run_id: epoch}, "another"), ({run_id: epoch - 1}, "doomed")):
        assert await in_database(progress.beat, epochs, holder=holder, lease_seconds=30) == (set(), set())


async def test_no_late_beat_renews_what_was_given_up(chatter: Chatter) -> None:
    process = await doomed(chatter.id, "writing")
    await process.dies()
    claim = process.claim
    told = await in_database(progress.beat, {claim.run_id: claim.epoch}, holder="doomed", lease_seconds=30)
    assert told == (set(), set())
    assert (await chatter.hydrate())["activeRun"] is None


async def test_a_process_that_slept_past_its_lease_goes_on_if_nobody_took_over(chatter: Chatter) -> None:
    """Whoever looks first when a laptop wakes up: its own sweep, or somebody who reads."""
    await chatter.send("words=1000 delay=20")
    run = await the_run(chatter.id)
    lapsed = Run.objects.filter(pk=run.pk)
    await in_database(lapsed.update, lease_expires_at=datetime.now(UTC) - timedelta(hours=8))
    await loop.call(launch.tend, chatter.id)
    run = await the_run(chatter.id)
    assert (run.state, run.epoch) == ("running", 1)
    assert run.lease_expires_at > datetime.now(UTC)
    await chatter.post(f"/api/chat/{chatter.id}/stop", {})


async def test_the_heart_stands_in_no_line(chatter: Chatter, settings: Any) -> None:
    """Its touch of the database is not kept waiting by all the others."""
    settings.DURABLE_CHAT = settings.DURABLE_CHAT | {"LEASE_SECONDS": 1.0}
    await chatter.send("words=1000 delay=50")
    run = await the_run(chatter.id)
    held = threading.Event()
    line = [asyncio.ensure_future(in_database(held.wait, 30)) for _ in range(50)]
    try:
        renewed = Run.objects.filter(pk=run.pk, lease_expires_at__gt=run.lease_expires_at)
        for _ in range(3):
            await until(renewed.aexists)
    finally:
        held.set()
        await asyncio.gather(*line)
    await chatter.post(f"/api/chat/{chatter.id}/stop", {})


async def test_a_run_that_its_process_begins_again_is_kept_when_the_first_ends() -> None:
    """It slept, was taken over, and took the run up once more: the first learns late that it has lost it."""

    class Execution:
        claim = SimpleNamespace(run_id="r", conversation_id="c", epoch=1)
        lost = False

        def __init__(self) -> None:
            self.over = asyncio.Event()

        async def run(self) -> None:
            await self.over.wait()

        def lose(self) -> None:
            self.lost = True

    async def begun_twice() -> None:
        first, second = Execution(), Execution()
        for execution in (first, second):
            heart.start(execution, then=lambda: None)  # type: ignore[arg-type]
        assert (first.lost, second.lost) == (True, False)
        first.over.set()
        assert await heart.wait("r", timeout=0.05)
        second.over.set()
        assert await heart.wait("r", timeout=10)
        await heart.drain()
        assert not await heart.wait("r", timeout=0)

    await loop.call(begun_twice)


async def test_the_heart_loses_a_run_that_was_taken_over(chatter: Chatter) -> None:
    """The process was stopped past its lease: what it wakes up to is somebody else's conversation."""
    await chatter.send("words=1000 delay=20")
    run = await the_run(chatter.id)
    execution, task = heart._live[run.pk]
    await in_database(progress.abandon, execution.claim)
    assert (await chatter.hydrate())["activeRun"] is None
    chunks = await chatter.chunks()
    await chatter.idle()
    assert task.done()
    assert await chatter.chunks() == chunks


async def test_the_heart_beats_on_whatever_the_database_raises(
    chatter: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """InterfaceError, which says that a connection is no more, is no DatabaseError."""
    beats: list[dict[str, int]] = []

    def beat(epochs: dict[str, int], **who: Any) -> tuple[set[str], set[str]]:
        beats.append(epochs)
        if len(beats) == 1:
            raise InterfaceError("the connection is closed")
        return real(epochs, **who)

    real = progress.beat
    monkeypatch.setattr(progress, "beat", beat)
    await chatter.send("words=1000 delay=50")
    await until(lambda: len(beats) > 1)
    assert (await chatter.post(f"/api/chat/{chatter.id}/stop", {})).status_code == 202
    await chatter.idle()
    assert (await the_run(chatter.id)).state == "stopped"


async def test_usage_that_the_stream_tells_is_recorded(chatter: Chatter) -> None:
    process = await doomed(chatter.id, "writing")
    process.answer.usage = {"outputTokens": 2}
    await process.finished_writing()
    await process.dies()
    await chatter.hydrate()
    assert (await the_run(chatter.id)).usage == {"outputTokens": 2}


async def test_usage_that_was_told_before_the_process_died_is_recorded(chatter: Chatter) -> None:
    process = await doomed(chatter.id, "writing")
    for tokens in (2, 5):
        await process.uses({"outputTokens": tokens})
    await process.dies()
    await chatter.hydrate()
    run = await the_run(chatter.id)
    assert (run.state, run.usage) == ("interrupted", {"outputTokens": 5})
    assert (await chatter.chunks())[-1]["usage"] == {"outputTokens": 5}
