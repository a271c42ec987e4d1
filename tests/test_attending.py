"""A conversation that cannot be attended to holds up nobody else."""

import asyncio
from io import StringIO
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.test import AsyncClient
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from durable_chat import backends
from durable_chat.chunks import is_terminal
from durable_chat.models import Conversation, Run
from durable_chat.runs import launch, loop, sweep
from durable_chat.signals import run_finished, run_started
from tests.conftest import Chatter, stored, the_run, words
from tests.test_recovery import Doomed, doomed


async def dead(chatter: Chatter) -> Doomed:
    """A conversation of its own whose process died while it wrote."""
    await chatter.begin()
    process = await doomed(chatter.id, "writing")
    await process.dies()
    return process


async def closed(process: Doomed) -> None:
    """Its stream takes no more, which whoever holds the service's secret can bring about."""
    conversation = await Conversation.objects.aget(pk=process.claim.conversation_id)
    await backends.get_streams().close(conversation.stream_path)


async def state(process: Doomed) -> str:
    return str((await the_run(process.claim.conversation_id)).state)


async def test_a_stream_that_takes_no_more_holds_up_no_other(chatter: Chatter) -> None:
    bad, good = await dead(chatter), await dead(chatter)
    await closed(bad)
    swept = await loop.call(sweep.sweep)
    assert (swept.recovered, swept.failed) == ((good.claim.run_id,), (bad.claim.conversation_id,))
    assert await state(good) == "interrupted"
    assert (await loop.call(sweep.sweep, but=swept.failed)).failed == ()


async def test_nor_does_what_nobody_foresaw(chatter: Chatter, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = await dead(chatter), await dead(chatter)
    real = launch.recover

    async def recover(conversation_id: str, **who: Any) -> Any:
        if conversation_id == bad.claim.conversation_id:
            raise TypeError("nobody thought of this")
        return await real(conversation_id, **who)

    monkeypatch.setattr(launch, "recover", recover)
    with pytest.raises(CommandError, match="Not everything"):
        await sync_to_async(call_command)("durable_chat_recover", stdout=StringIO())
    assert (await state(good), await state(bad)) == ("interrupted", "running")
    chatter.id = bad.claim.conversation_id
    assert (await chatter.hydrate())["activeRun"] == {"runId": bad.claim.run_id}
    page = await _recovered_by_hand(bad)
    assert "log says what failed" in page


async def _recovered_by_hand(process: Doomed) -> str:
    staff = AsyncClient()
    await staff.aforce_login(await get_user_model().objects.acreate_superuser("root"))
    asked = {"action": "recover", "_selected_action": process.claim.run_id}
    response = await staff.post(reverse("admin:durable_chat_run_changelist"), asked, follow=True)
    assert response.status_code == 200
    return str(response.content.decode())


@pytest.mark.parametrize(
    "nonsense", [1, None, [1], "text", {}, {"type": 7}, {"type": "TEXT_MESSAGE_CONTENT"}]
)
async def test_what_is_no_chunk_is_passed_over(chatter: Chatter, nonsense: Any) -> None:
    """Whoever holds the service's secret can write anything."""
    process = await doomed(chatter.id, "writing")
    await process.producer.append([nonsense])
    await process.dies()
    assert await chatter.texts() == [("user", "words=3"), ("assistant", words(2))]
    chunks = await stored(chatter.id)
    assert is_terminal(chunks[-1], process.claim.run_id)
    view = await chatter.http.get(f"/api/chat-stream?id={chatter.id}&run={process.claim.run_id}&offset=-1")
    assert "".join(item.get("delta", "") for item in view.json()) == words(2)


async def test_a_message_waits_however_long_the_last_answer_takes_to_end(
    chatter: Chatter, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the streams service away, an answer may be about to end for minutes."""
    settings.DURABLE_CHAT = settings.DURABLE_CHAT | {"WHEN_BUSY": "queue"}
    monkeypatch.setattr(launch, "ENDING_SECONDS", 0.1)
    process = await doomed(chatter.id, "writing")
    await Run.objects.filter(pk=process.claim.run_id).aupdate(state=Run.State.ENDING)
    assert (await chatter.send("words=3", id="m-2")).status_code == 202
    (queued,) = (await chatter.hydrate())["queued"]
    assert queued["message"]["id"] == "m-2"
    await process.dies()
    await chatter.hydrate()
    await chatter.idle()
    assert (await chatter.texts())[-1] == ("assistant", words(3))


async def test_where_messages_are_refused_it_is_busy(
    chatter: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "ENDING_SECONDS", 0.1)
    process = await doomed(chatter.id, "writing")
    await Run.objects.filter(pk=process.claim.run_id).aupdate(state=Run.State.ENDING)
    refused = await chatter.send("words=3", id="m-2")
    assert refused.status_code == 409
    assert refused.json()["activeRun"] == {"runId": process.claim.run_id}


# --- patience ----------------------------------------------------------------------------------------------


@given(st.lists(st.frozensets(st.sampled_from("abc")), max_size=12))
def test_who_fails_rests_longer_each_time_and_who_does_not_is_forgotten(rounds: list[frozenset[str]]) -> None:
    now = 0.0
    patience = sweep.Patience(1.0, clock=lambda: now)
    pauses, until = dict.fromkeys("abc", 0.0), dict.fromkeys("abc", 0.0)
    for failing in rounds:
        now += 1.5
        asked = set("abc") - set(patience.resting())
        assert asked == {name for name in "abc" if until[name] <= now}
        patience.note(sorted(asked & failing))
        for name in asked:
            longer = min(2 * pauses[name], sweep.LONGEST_PAUSE) or 1.0
            pauses[name] = longer if name in failing else 0.0
            until[name] = now + pauses[name]


# --- what a host's own code raises -------------------------------------------------------------------------


async def leaves(prompt: Any) -> Any:
    """As an SDK that calls `sys.exit`."""
    yield "w0 "
    if prompt.messages[-1].text() == "leave":
        raise SystemExit(3)


async def leaves_too(error: Exception, prompt: Any) -> str:
    raise SystemExit(4)


@pytest.mark.parametrize("on_error", ["durable_chat.exceptions.public", f"{__name__}.leaves_too"])
async def test_a_model_that_ends_the_process_ends_its_answer(
    chatter: Chatter, settings: Any, on_error: str
) -> None:
    provider = {"PROVIDER": {"BACKEND": f"{__name__}.leaves"}, "ON_ERROR": on_error}
    settings.DURABLE_CHAT = settings.DURABLE_CHAT | provider
    assert (await chatter.send("leave")).status_code == 202
    await asyncio.wait_for(chatter.idle(), 20)
    run = await the_run(chatter.id)
    assert (run.state, run.error.partition(" ")[0]) == ("failed", "SystemExit")
    assert (await chatter.send("stay")).status_code == 202
    await asyncio.wait_for(chatter.idle(), 20)
    assert (await the_run(chatter.id)).state == "done"


async def test_a_receiver_that_ends_the_process_is_passed_over(chatter: Chatter) -> None:
    def leave(**named: Any) -> None:
        raise SystemExit(5)

    for signal in (run_started, run_finished):
        signal.connect(leave)
    try:
        assert (await chatter.send("words=3")).status_code == 202
        await asyncio.wait_for(chatter.idle(), 20)
    finally:
        for signal in (run_started, run_finished):
            signal.disconnect(leave)
    assert (await the_run(chatter.id)).state == "done"


def finds_nothing(visitor: Any, conversation: Any, action: str) -> bool:
    return bool(next(iter(())))


async def test_a_permission_that_finds_nothing_to_iterate_admits_nobody(
    chatter: Chatter, settings: Any
) -> None:
    """StopIteration cannot be told to who waits for it."""
    settings.DURABLE_CHAT = settings.DURABLE_CHAT | {"PERMISSION": f"{__name__}.finds_nothing"}
    answer = await asyncio.wait_for(chatter.http.get(f"/api/conversations/{chatter.id}"), 20)
    assert answer.status_code == 500
    assert set(answer.json()) == {"error"}
