"""Stop, from every door: the answer ends, what there is of it is kept and marked, readers are told once."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from channels.testing import WebsocketCommunicator
from django.contrib.auth import get_user_model

from durable_chat.chunks import is_terminal
from durable_chat.connections import in_database
from durable_chat.messages import Prompt
from durable_chat.models import Member, Run
from durable_chat.runs import ends, heart, launch, loop, progress, shutdown
from tests.conftest import Chatter, stored, the_run
from tests.faults.people import until
from tests.test_recovery import doomed
from tests.test_websocket import Socket

LONG = "words=1000 delay=20"
NUL = '{"type": "abort", "runId": "\\u0000"}'


async def is_stopped(chatter: Chatter) -> None:
    await chatter.idle()
    run = await the_run(chatter.id)
    assert run.state == "stopped"
    chunks = await stored(chatter.id, until=(await chatter.hydrate())["offset"])
    assert [chunk.get("code") for chunk in chunks if is_terminal(chunk, run.pk)] == ["stopped"]
    assert is_terminal(chunks[-1], run.pk)


@pytest.mark.parametrize("path", ["/api/chat?id={id}", "/api/chat/?id={id}", "/api/chat"])
async def test_a_delete_stops_the_answer(chatter: Chatter, path: str) -> None:
    """As S2's clients ask: the id in the address, or in the body."""
    await chatter.send(LONG)
    ask = {"path": path.format(id=chatter.id), "data": {"id": chatter.id}, "content_type": "application/json"}
    assert (await chatter.http.delete(**ask)).status_code == 202
    await is_stopped(chatter)
    assert (await chatter.http.delete(**ask)).status_code == 204


async def test_a_delete_by_a_stranger_stops_nothing(chatter: Chatter) -> None:
    await chatter.send(LONG)
    assert (await Chatter().http.delete(f"/api/chat?id={chatter.id}")).status_code == 404
    assert (await chatter.hydrate())["activeRun"] is not None
    await chatter.http.delete(f"/api/chat?id={chatter.id}")


async def say(socket: Socket, frame: str) -> None:
    communicator: WebsocketCommunicator = socket._communicator
    await communicator.send_to(text_data=frame)


@pytest.mark.parametrize("named", [True, False])
async def test_a_frame_stops_the_answer(chatter: Chatter, named: bool) -> None:
    await chatter.send(LONG)
    run = await the_run(chatter.id)
    async with Socket(chatter, f"/ws/chat/{chatter.id}") as socket:
        for nonsense in ("{", "[]", "null", '{"type": "abort", "runId": 7}', NUL, '{"type": "ping"}'):
            await say(socket, nonsense)
        await say(socket, '{"type": "abort", "runId": "another"}')
        await socket.frames(until="TEXT_MESSAGE_CONTENT")
        assert not (await the_run(chatter.id)).stop_requested
        await say(socket, f'{{"type": "abort", "runId": "{run.pk}"}}' if named else '{"type": "abort"}')
        assert (await socket.frames(until="RUN_ERROR"))[-1]["chunk"]["code"] == "stopped"
    await is_stopped(chatter)


async def test_a_frame_of_somebody_who_may_only_read_stops_nothing(chatter: Chatter) -> None:
    reader = Chatter()
    user = await get_user_model().objects.acreate(username="reader")
    await reader.http.aforce_login(user)
    await Member.objects.acreate(conversation_id=chatter.id, user=user, role="reader")
    await chatter.send("words=30 delay=20")
    async with Socket(reader, f"/ws/chat/{chatter.id}") as socket:
        await say(socket, '{"type": "abort"}')
        await socket.frames()
    assert (await the_run(chatter.id)).stop_requested is False


async def test_the_flag_stops_a_run(chatter: Chatter) -> None:
    """As another process sets it: whoever writes finds it at the next beat of its heart."""
    await chatter.send(LONG)
    await in_database((await the_run(chatter.id)).stop)
    await is_stopped(chatter)


async def test_the_flag_of_what_has_ended_says_nothing(chatter: Chatter) -> None:
    await chatter.send("words=1")
    await chatter.idle()
    run = await the_run(chatter.id)
    await in_database(run.stop)
    await run.arefresh_from_db()
    assert (run.state, run.stop_requested) == ("done", False)


async def test_a_stopped_answer_is_marked_in_the_row_and_in_the_stream(chatter: Chatter) -> None:
    await chatter.send(LONG)
    await until(lambda: _said(chatter, "w1 "))
    await chatter.http.delete(f"/api/chat?id={chatter.id}")
    await is_stopped(chatter)
    answer = (await chatter.hydrate())["messages"][-1]
    assert answer["metadata"] == {"durable_chat": {"ended": "stopped"}}
    assert answer["parts"][0]["content"].startswith("w0 w1")
    as_sdk = await chatter.http.get(f"/api/conversations/{chatter.id}?as=ai-sdk")
    assert as_sdk.json()["messages"][-1]["metadata"] == answer["metadata"]
    await chatter.send("words=1")
    await chatter.idle()
    assert "metadata" not in (await chatter.hydrate())["messages"][-1]


async def test_an_interrupted_answer_is_marked(chatter: Chatter) -> None:
    process = await doomed(chatter.id, "writing")
    await process.dies()
    assert (await chatter.hydrate())["messages"][-1]["metadata"] == {"durable_chat": {"ended": "interrupted"}}


async def _said(chatter: Chatter, word: str) -> bool:
    return any(chunk.get("delta") == word for chunk in await chatter.chunks())


closed: list[str] = []


async def closing(prompt: Prompt) -> AsyncIterator[str]:
    try:
        while True:
            yield "word "
            await asyncio.sleep(0.01)
    finally:
        await asyncio.sleep(0)
        closed.append(prompt.run_id)


async def test_the_provider_is_closed(chatter: Chatter, settings: Any) -> None:
    settings.DURABLE_CHAT = {"PROVIDER": {"BACKEND": "tests.test_stop.closing"}}
    await chatter.send("hello")
    await until(lambda: _said(chatter, "word "))  # before, there may be none to be closed
    await chatter.http.delete(f"/api/chat?id={chatter.id}")
    await is_stopped(chatter)
    assert closed == [(await the_run(chatter.id)).pk]


# A stop that comes at any moment of a run's life, between two steps that the run takes in the database.
MOMENTS = [(step, when) for step in ("accepted", "end", "release") for when in ("before", "after")]


@pytest.mark.parametrize(("step", "when"), MOMENTS)
async def test_a_stop_that_races_the_end_leaves_one_terminal_chunk(
    chatter: Chatter, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    real: Callable[..., None] = getattr(progress, step)

    def stop() -> None:
        loop.block(launch.stop, chatter.id, timeout=10)

    def racing(*args: Any, **kwargs: Any) -> None:
        if when == "before":
            stop()
        real(*args, **kwargs)
        if when == "after":
            stop()

    monkeypatch.setattr(progress, step, racing)
    assert (await chatter.send("words=3")).status_code == 202
    await chatter.idle()
    run = await the_run(chatter.id)
    chunks = await stored(chatter.id, until=(await chatter.hydrate())["offset"])
    assert [is_terminal(chunk, run.pk) for chunk in chunks].count(True) == 1
    assert is_terminal(chunks[-1], run.pk)
    assert run.state == ("stopped" if step == "accepted" else "done")
    monkeypatch.undo()
    assert (await chatter.send("words=1")).status_code == 202


@pytest.mark.parametrize("door", ["view", "flag"])
async def test_a_run_that_waits_for_a_place_stops(chatter: Chatter, settings: Any, door: str) -> None:
    settings.DURABLE_CHAT = {"MAX_RUNS": 1}
    await chatter.send(LONG)
    second = Chatter()
    await second.begin()
    await second.send(LONG)
    if door == "view":
        assert (await second.post(f"/api/chat/{second.id}/stop", {})).status_code == 202
    else:
        await in_database((await the_run(second.id)).stop)
    await until(Run.objects.filter(conversation=second.id, state="stopped").aexists)
    assert (await chatter.hydrate())["activeRun"] is not None
    await chatter.http.delete(f"/api/chat?id={chatter.id}")
    await is_stopped(second)


async def test_a_run_that_a_late_send_begins_is_stopped_by_the_shutdown_too(
    chatter: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The send was under way when the process was told to end, and every run had been told to stop."""
    came, told, go_on = threading.Event(), threading.Event(), threading.Event()

    async def slow(conversation_id: str, **seen: Any) -> None:
        came.set()
        await asyncio.to_thread(go_on.wait)

    def stop_all(end: ends.End) -> None:
        real(end)
        told.set()

    real = heart.stop_all
    monkeypatch.setattr(launch, "mend", slow)
    monkeypatch.setattr(heart, "stop_all", stop_all)
    sending = asyncio.create_task(chatter.send("words=100000 delay=20"))
    await until(came.is_set)
    leaving = loop.submit(shutdown._drain, 0)
    await until(told.is_set)
    go_on.set()
    assert (await sending).status_code == 202
    await until(leaving.done)
    assert (await the_run(chatter.id)).state == "interrupted"
