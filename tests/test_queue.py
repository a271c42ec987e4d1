"""WHEN_BUSY: what a message meets that is sent while an answer is being written."""

import asyncio
import random
from contextlib import suppress
from typing import Any

import orjson
import pytest

from durable_chat import backends
from durable_chat.chunks import is_terminal, run_id_of
from durable_chat.connections import in_database, in_thread
from durable_chat.exceptions import NotFound
from durable_chat.messages import Message, Turn, fold
from durable_chat.models import Conversation, Run
from durable_chat.models import Message as Row
from durable_chat.runs import launch, loop, progress
from durable_chat.runs.admission import Due, Ending, Queued, admit
from durable_chat.runs.claim import Claim, Fenced, take_over
from durable_chat.runs.execute import PRODUCER_ID
from durable_chat.runs.queue import next_in_line
from durable_chat.runs.queue import withdraw as taken_back
from durable_chat.runs.recover import recover
from durable_chat.streams.client import Producer
from durable_chat.streams.client.sse import Decoder
from tests.conftest import Chatter, stored, the_run, words

LONG = "words=1000 delay=20"


@pytest.fixture
def queueing(settings: Any) -> None:
    settings.DURABLE_CHAT = {"WHEN_BUSY": "queue"}


@pytest.fixture
def interrupting(settings: Any) -> None:
    settings.DURABLE_CHAT = {"WHEN_BUSY": "interrupt"}


async def stop(chatter: Chatter) -> None:
    assert (await chatter.post(f"/api/chat/{chatter.id}/stop", {})).status_code == 202


async def withdraw(chatter: Chatter, name: str) -> Any:
    return await chatter.http.delete(f"/api/chat/{chatter.id}/queue/{name}")


async def line(chatter: Chatter) -> list[str]:
    """The ids of the messages that wait, as hydration shows them."""
    return [waiting["message"]["id"] for waiting in (await chatter.hydrate())["queued"]]


async def all_is_well(chatter: Chatter) -> None:
    """Whatever ran has one end, nobody is active, and the rows are what the stream says."""
    hydrated = await chatter.hydrate()
    assert (hydrated["activeRun"], hydrated["queued"]) == (None, [])
    chunks = await stored(chatter.id, until=hydrated["offset"])
    assert [(m.id, list(m.parts)) for m in fold(chunks)] == [
        (m["id"], m["parts"]) for m in hydrated["messages"]
    ]
    async for run in Run.objects.filter(conversation=chatter.id, epoch__gt=0):
        assert [is_terminal(chunk, run.pk) for chunk in chunks].count(True) == 1


@pytest.mark.usefixtures("queueing")
async def test_messages_wait_and_are_answered_in_order(chatter: Chatter) -> None:
    await chatter.send("words=30 delay=20", id="m-1")
    for number in range(2, 6):
        assert (await chatter.send(f"words={number}", id=f"m-{number}")).status_code == 202
    assert await line(chatter) == ["m-2", "m-3", "m-4", "m-5"]
    assert await chatter.texts() == [("user", "words=30 delay=20")]
    await chatter.idle()
    told = [("words=30 delay=20", 30), *((f"words={n}", n) for n in range(2, 6))]
    assert await chatter.texts() == [
        said for text, n in told for said in (("user", text), ("assistant", words(n)))
    ]
    await all_is_well(chatter)


@pytest.mark.usefixtures("queueing")
async def test_a_message_that_waits_is_sent_once(chatter: Chatter) -> None:
    await chatter.send(LONG)
    first = await chatter.submit("words=1", id="m-2")
    again = await chatter.submit("words=1", id="m-2")
    assert (first.status_code, again["Location"]) == (201, first["Location"])
    assert (await chatter.send("words=1", id="m-2")).status_code == 202
    assert (await chatter.send("words=2", id="m-2")).status_code == 409
    assert await Run.objects.acount() == 2
    await stop(chatter)
    await chatter.idle()
    assert [said for said in await chatter.texts() if said[0] == "user"] == [
        ("user", LONG),
        ("user", "words=1"),
    ]
    await all_is_well(chatter)


@pytest.mark.usefixtures("queueing")
@pytest.mark.parametrize("by", ["run", "message"])
async def test_a_message_that_waits_can_be_withdrawn(chatter: Chatter, by: str) -> None:
    await chatter.send(LONG)
    await chatter.send("words=1", id="m-2")
    await chatter.send("words=2", id="m-3")
    waiting = (await chatter.hydrate())["queued"][0]
    name = waiting["runId"] if by == "run" else "m-2"
    assert (await withdraw(chatter, name)).status_code == 204
    assert (await withdraw(chatter, name)).status_code == 409
    assert (await withdraw(chatter, "%00")).status_code == 409
    assert await line(chatter) == ["m-3"]
    await stop(chatter)
    await chatter.idle()
    assert (await chatter.texts())[2:] == [("user", "words=2"), ("assistant", words(2))]
    assert (await withdraw(chatter, "m-3")).status_code == 409
    await all_is_well(chatter)


@pytest.mark.usefixtures("queueing")
async def test_what_was_withdrawn_can_be_sent_again(chatter: Chatter) -> None:
    await chatter.send(LONG)
    await chatter.send("words=1", id="m-2")
    await withdraw(chatter, "m-2")
    assert (await chatter.send("words=2", id="m-2")).status_code == 202
    await stop(chatter)
    await chatter.idle()
    assert (await chatter.texts())[2:] == [("user", "words=2"), ("assistant", words(2))]


@pytest.mark.usefixtures("queueing")
async def test_only_the_owner_withdraws(chatter: Chatter) -> None:
    await chatter.send(LONG)
    await chatter.send("words=1", id="m-2")
    stranger = Chatter()
    assert (await stranger.http.delete(f"/api/chat/{chatter.id}/queue/m-2")).status_code == 404
    assert await line(chatter) == ["m-2"]
    await withdraw(chatter, "m-2")
    await stop(chatter)


@pytest.mark.usefixtures("queueing")
async def test_the_flag_of_a_waiting_run_withdraws_it(chatter: Chatter) -> None:
    await chatter.send(LONG)
    await chatter.send("words=1", id="m-2")
    run = await Run.objects.aget(message__client_id="m-2")
    await in_database(run.stop)
    assert await line(chatter) == []
    await run.arefresh_from_db()
    assert run.state == "stopped"
    assert not await Row.objects.filter(client_id="m-2").aexists()
    await stop(chatter)


@pytest.mark.usefixtures("queueing")
async def test_the_run_of_a_waiting_message_is_an_open_stream(chatter: Chatter) -> None:
    await chatter.send(LONG)
    url = (await chatter.submit("words=3", id="m-2"))["Location"]
    page = await chatter.http.get(f"{url}&offset=-1")
    assert (page.json(), "Stream-Closed" in page.headers) == ([], False)
    reading = asyncio.create_task(events(await chatter.http.get(f"{url}&offset=-1&live=sse")))
    await stop(chatter)
    items, closed = await reading
    assert (closed, "".join(item.get("delta", "") for item in items)) == (True, words(3))
    resumed = await chatter.http.get(f"{url}&offset={3:016d}")
    assert resumed.headers["Stream-Closed"] == "true"
    assert [*items[: len(items) - len(resumed.json())], *resumed.json()] == items
    await chatter.idle()


@pytest.mark.usefixtures("queueing")
async def test_the_run_of_a_withdrawn_message_is_a_closed_stream(chatter: Chatter) -> None:
    await chatter.send(LONG)
    url = (await chatter.submit("words=3", id="m-2"))["Location"]
    reading = asyncio.create_task(events(await chatter.http.get(f"{url}&offset=-1&live=sse")))
    await withdraw(chatter, "m-2")
    assert await reading == ([{"type": "abort"}], True)
    for live in ("", "&live=long-poll", "&live=sse"):
        late = await chatter.http.get(f"{url}&offset=-1{live}")
        if live == "&live=sse":
            assert await events(late) == ([{"type": "abort"}], True)
        else:
            assert (late.json(), late.headers["Stream-Closed"]) == ([{"type": "abort"}], "true")
    await stop(chatter)


async def events(response: Any) -> tuple[list[dict[str, Any]], bool]:
    """The items of one live read, and whether it says that the stream is closed."""
    decoder, items, closed = Decoder(), [], False
    pieces = [piece async for piece in response] if response.streaming else [response.content]
    for piece in pieces:
        for event in decoder.feed(piece):
            if event.name == "data":
                items += orjson.loads(event.data)
            else:
                closed = orjson.loads(event.data).get("streamClosed", False)
    return items, closed


@pytest.mark.usefixtures("interrupting")
async def test_a_message_interrupts_the_answer(chatter: Chatter) -> None:
    await chatter.send(LONG, id="m-1")
    assert (await chatter.send("words=3", id="m-2")).status_code == 202
    await chatter.idle()
    chunks = await chatter.chunks()
    first, second = [run async for run in Run.objects.order_by("epoch")]
    assert (first.state, second.state) == ("stopped", "done")
    ends = [place for place, chunk in enumerate(chunks) if is_terminal(chunk, first.pk)]
    starts = [place for place, chunk in enumerate(chunks) if run_id_of(chunk) == second.pk]
    assert ends[0] < starts[0]
    assert (await chatter.texts())[-2:] == [("user", "words=3"), ("assistant", words(3))]
    await all_is_well(chatter)


@pytest.mark.usefixtures("interrupting")
async def test_the_last_of_many_interruptions_is_answered(chatter: Chatter) -> None:
    sends = [chatter.send(f"words=30 delay=20 {n}", id=f"m-{n}") for n in range(6)]
    assert [response.status_code for response in await asyncio.gather(*sends)] == [202] * 6
    await chatter.idle()
    states = [run.state async for run in Run.objects.order_by("epoch")]
    assert states == [*["stopped"] * 5, "done"]
    assert len([said for said in await chatter.texts() if said[0] == "user"]) == 6
    await all_is_well(chatter)


@pytest.mark.usefixtures("interrupting")
async def test_asking_again_is_no_interruption(chatter: Chatter) -> None:
    await chatter.send("words=20 delay=20", id="m-1")
    assert (await chatter.send("words=20 delay=20", id="m-1")).status_code == 202
    await chatter.idle()
    assert await chatter.texts() == [("user", "words=20 delay=20"), ("assistant", words(20))]
    assert await Run.objects.acount() == 1


# --- with processes that die -------------------------------------------------------------------------------


def turn(id: str, text: str = "words=2") -> Turn:
    return Turn(
        Message(id=id, role="user", parts=({"type": "text", "content": text},)), "send", {"a": 1}, "tanstack"
    )


async def admitted(chatter: Chatter, id: str) -> Claim | Queued:
    """By a process that does nothing further."""
    message = Message(id=id, role="user", parts=({"type": "text", "content": "words=2"},))
    turn = Turn(message, "send", {"a": 1}, "tanstack")
    found = await in_database(
        admit, chatter.id, turn, holder="elsewhere", lease_seconds=30, when_busy="queue"
    )
    assert isinstance(found, Claim | Queued)
    return found


async def released(claim: Claim) -> None:
    """By another that dies before it begins the next."""
    await in_database(progress.abandon, claim)
    assert await loop.call(recover, claim.conversation_id, holder="elsewhere") is not None


@pytest.mark.usefixtures("queueing")
async def test_the_next_visitor_starts_what_waits_in_a_free_conversation(chatter: Chatter) -> None:
    """The process that released the conversation died before it began the next run."""
    first = await admitted(chatter, "m-1")
    await admitted(chatter, "m-2")
    assert isinstance(first, Claim)
    await released(first)
    await chatter.hydrate()
    await chatter.idle()
    assert await chatter.texts() == [("user", "words=2"), ("assistant", words(2))]
    assert (await the_run(chatter.id)).options == {"a": 1}
    await all_is_well(chatter)


@pytest.mark.usefixtures("queueing")
async def test_a_run_whose_process_died_before_it_began_waits_again(chatter: Chatter) -> None:
    """Its send was answered: what was promised is kept, once."""
    first = await admitted(chatter, "m-1")
    assert isinstance(first, Claim)
    waiting = await admitted(chatter, "m-2")
    await released(first)
    second = await in_database(next_in_line, chatter.id, holder="elsewhere", lease_seconds=30, hurried=False)
    assert second is not None
    assert second.run_id == waiting.run_id
    await in_database(progress.abandon, second)
    await chatter.hydrate()
    await chatter.idle()
    assert await chatter.texts() == [("user", "words=2"), ("assistant", words(2))]
    run = await Run.objects.aget(pk=waiting.run_id)
    assert run.state == "done"
    await all_is_well(chatter)


@pytest.mark.parametrize("hurried", [False, True])
@pytest.mark.parametrize("echoed", [False, True])
@pytest.mark.usefixtures("queueing")
async def test_a_run_that_was_stopped_when_its_process_died_does_not_wait_again(
    chatter: Chatter, *, hurried: bool, echoed: bool
) -> None:
    """What was asked is said, and its answer ends as stopped: it is not withdrawn."""
    first = await admitted(chatter, "m-1")
    assert isinstance(first, Claim)
    waiting = await admitted(chatter, "m-2")
    await admitted(chatter, "m-3")
    await released(first)
    second = await in_database(
        next_in_line, chatter.id, holder="elsewhere", lease_seconds=30, hurried=hurried
    )
    assert second is not None
    assert second.run_id == waiting.run_id
    if echoed:
        streams = backends.get_streams()
        async with Producer(streams, second.stream_path, id=PRODUCER_ID, epoch=second.epoch) as producer:
            await producer.append(second.opening)
    if not hurried:
        assert await in_database(progress.request_stop, chatter.id, None) is not None
    await in_database(progress.abandon, second)
    await chatter.hydrate()
    await chatter.idle()
    run = await Run.objects.aget(pk=waiting.run_id)
    assert run.state == "stopped"
    assert [text for role, text in await chatter.texts() if role == "user"] == ["words=2", "words=2"]
    assert next(message["id"] for message in (await chatter.hydrate())["messages"]) == "m-2"
    await all_is_well(chatter)


@pytest.mark.usefixtures("queueing")
async def test_a_stop_that_comes_with_its_turn_is_not_lost(
    chatter: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line moves between the two looks that a stop takes."""
    first = await admitted(chatter, "m-1")
    waiting = await admitted(chatter, "m-2")
    assert isinstance(first, Claim)
    await released(first)
    turns: list[Claim | None] = []

    async def looks(function: Any, *args: Any, **kwargs: Any) -> Any:
        seen = await in_database(function, *args, **kwargs)
        if not turns:
            who = {"holder": "elsewhere", "lease_seconds": 30, "hurried": False}
            turns.append(await in_database(next_in_line, chatter.id, **who))
        return seen

    with monkeypatch.context() as patched:
        patched.setattr(launch, "in_database", looks)
        assert await loop.call(launch.stop, chatter.id, waiting.run_id)
    run = await Run.objects.aget(pk=waiting.run_id)
    assert run.stop_requested or run.state == "stopped"


@pytest.mark.usefixtures("queueing")
async def test_whoever_recovers_a_run_begins_the_next(chatter: Chatter) -> None:
    first = await admitted(chatter, "m-1")
    await admitted(chatter, "m-2")
    assert isinstance(first, Claim)
    await in_database(progress.abandon, first)
    assert (await chatter.send("words=3", id="m-3")).status_code == 202
    await chatter.idle()
    assert [text for role, text in await chatter.texts() if role == "user"] == ["words=2", "words=3"]
    await all_is_well(chatter)


@pytest.mark.usefixtures("queueing")
async def test_no_order_of_locks_is_a_deadlock(site: None) -> None:
    """Everything that changes rows at once, on few conversations, which are deleted while it goes on."""
    conversations = [await Conversation.objects.acreate() for _ in range(4)]

    def work(number: int) -> None:
        dice = random.Random(number)
        for step in range(60):
            conversation_id = dice.choice(conversations).pk
            dice.choice([enter, progress_by_one, leave, end_all])(conversation_id, f"m-{number}-{step}")
        if number == 0:
            Conversation.objects.filter(pk__in=[conversation.pk for conversation in conversations]).delete()

    await asyncio.gather(*(in_thread(work, number) for number in range(6)))
    assert not await Run.objects.aexists()


def enter(conversation_id: str, id: str) -> None:
    turn = Turn(Message(id=id, role="user", parts=({"type": "text", "content": id},)), "send", {}, "tanstack")
    with suppress(NotFound, Ending, Due):
        admit(conversation_id, turn, holder="all", lease_seconds=30, when_busy="queue")


def progress_by_one(conversation_id: str, id: str) -> None:
    claim = next_in_line(conversation_id, holder="all", lease_seconds=30, hurried=False)
    if claim is not None:
        with suppress(Fenced, Row.DoesNotExist):
            progress.accepted(claim, "1")
            progress.end(claim)
            progress.release(claim, Run.State.DONE, "2", messages=())


def leave(conversation_id: str, id: str) -> None:
    waiting = Run.objects.queued().filter(conversation=conversation_id).values_list("pk", flat=True)
    for run_id in waiting[:2]:
        taken_back(conversation_id, run_id)


def end_all(conversation_id: str, id: str) -> None:
    progress.request_stop(conversation_id, None)
    active = Run.objects.active().filter(conversation=conversation_id).values_list("pk", "epoch")
    progress.beat(dict(active), holder="all", lease_seconds=-1)
    claim = take_over(conversation_id, holder="all", lease_seconds=30)
    if claim is not None:
        with suppress(Fenced):
            progress.repair(claim, Run.State.INTERRUPTED, "3", messages=claim.messages)
