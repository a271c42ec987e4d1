"""Runs whose process died at a named point: one terminal chunk, the partial answer kept, the chat goes on."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from django.db import InterfaceError

from durable_chat import backends
from durable_chat.answers import Answer
from durable_chat.chunks import is_terminal
from durable_chat.connections import in_database
from durable_chat.messages import Message, Turn, fold
from durable_chat.models import Run
from durable_chat.runs import heart, progress
from durable_chat.runs.admission import admit
from durable_chat.runs.claim import Claim, Fenced, take_over
from durable_chat.runs.execute import PRODUCER_ID
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
    import asyncio

    from durable_chat.runs import loop
    from durable_chat.runs.recover import recover

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
    run_ids = {process.claim.run_id}
    told = await in_database(progress.beat, run_ids, holder="doomed", lease_seconds=30)
    assert told == (run_ids, run_ids)
    assert await in_database(progress.beat, run_ids, holder="another", lease_seconds=30) == (set(), set())


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
    beats: list[set[str]] = []

    def beat(run_ids: set[str], **who: Any) -> tuple[set[str], set[str]]:
        beats.append(run_ids)
        if len(beats) == 1:
            raise InterfaceError("the connection is closed")
        return real(run_ids, **who)

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
