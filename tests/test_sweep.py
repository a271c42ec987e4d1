"""What each process attends to by itself: nobody visits, yet no run stays active and no line stands still."""

import asyncio
from collections.abc import AsyncIterator
from io import StringIO
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.management import CommandError, call_command

from durable_chat import backends
from durable_chat.chunks import is_terminal
from durable_chat.connections import in_database
from durable_chat.models import Conversation, Run, Tombstone
from durable_chat.runs import loop, progress, sweep
from durable_chat.streams.client import StreamClient
from durable_chat.streams.protocol.errors import StreamNotFound
from durable_chat.streams.protocol.exchange import Request, Response
from tests.conftest import Chatter, the_run
from tests.faults.people import until
from tests.test_queue import admitted
from tests.test_recovery import doomed

START = sweep.start  # the real one: conftest keeps it from every other test


async def away(request: Request) -> Response:
    return Response(503, {"retry-after": "0"})


@pytest.fixture
async def sweeping() -> AsyncIterator[None]:
    START()
    yield
    await loop.call(sweep.stop)


async def ended(conversation_id: str) -> Run:
    async def probe() -> Run | None:
        run = await the_run(conversation_id)
        return None if run.unfinished else run

    run: Run = await until(probe)
    return run


@pytest.mark.usefixtures("sweeping")
async def test_a_run_whose_process_died_is_ended_although_nobody_looks(chatter: Chatter) -> None:
    process = await doomed(chatter.id, "writing")
    await process.dies()
    run = await ended(chatter.id)
    assert run.state == "interrupted"
    assert [is_terminal(chunk, run.pk) for chunk in await chatter.chunks()].count(True) == 1


@pytest.mark.usefixtures("sweeping")
async def test_what_waits_in_a_free_conversation_begins_although_nobody_looks(chatter: Chatter) -> None:
    first = await admitted(chatter, "m-1")
    await admitted(chatter, "m-2")
    await in_database(progress.abandon, first)
    assert (await ended(chatter.id)).state == "done"


async def test_sweeps_that_find_the_same_do_it_once(chatter: Chatter) -> None:
    process = await doomed(chatter.id, "writing")
    await process.dies()
    swept = await asyncio.gather(*(loop.call(sweep.sweep) for _ in range(5)))
    assert [run_id for each in swept for run_id in each.recovered] == [process.claim.run_id]


async def test_a_run_that_was_stopped_before_a_worker_began_it_is_ended(chatter: Chatter) -> None:
    """Readers know of it: they are told that it was stopped, by whoever finds it."""
    process = await doomed(chatter.id, "started")
    accepted = Run.objects.filter(pk=process.claim.run_id)
    await in_database(accepted.update, state=Run.State.ACCEPTED, holder="", lease_expires_at=None)
    assert (await loop.call(sweep.sweep)).recovered == ()
    run = await accepted.aget()
    await in_database(run.stop)
    assert (await loop.call(sweep.sweep)).recovered == (run.pk,)
    assert (await accepted.aget()).state == "stopped"
    assert (await chatter.chunks())[-1]["code"] == "stopped"


async def test_stopping_a_run_that_waits_for_a_worker_ends_it_at_once(chatter: Chatter) -> None:
    process = await doomed(chatter.id, "started")
    accepted = Run.objects.filter(pk=process.claim.run_id)
    await in_database(accepted.update, state=Run.State.ACCEPTED, holder="", lease_expires_at=None)
    assert (await chatter.post(f"/api/chat/{chatter.id}/stop", {})).status_code == 202
    assert (await accepted.aget()).state == "stopped"


@pytest.mark.usefixtures("sweeping")
async def test_streams_of_deleted_conversations_are_erased_when_the_service_is_back(
    chatter: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await chatter.send("words=1")
    await chatter.idle()
    path = (await Conversation.objects.aget(pk=chatter.id)).stream_path
    with monkeypatch.context() as patch:
        patch.setattr(backends, "get_streams", lambda: StreamClient(away))
        assert (await chatter.http.delete(f"/api/conversations/{chatter.id}")).status_code == 204
        assert await Tombstone.objects.filter(path=path, erased_at=None).aexists()
    await loop.call(sweep.stop)
    START()
    await until(Tombstone.objects.filter(path=path).exclude(erased_at=None).aexists)
    with pytest.raises(StreamNotFound):
        await backends.get_streams().read(path)


async def test_a_process_starts_one_sweep(site: None) -> None:
    START()
    START()
    await loop.call(asyncio.sleep, 0)
    first = sweep._sweeping
    START()
    assert sweep._sweeping is first
    await loop.call(sweep.stop)


async def test_sweeping_can_be_left_to_others(site: None, settings: Any) -> None:
    settings.DURABLE_CHAT = {"SWEEP_SECONDS": 0}
    START()
    assert not sweep._started


# --- the command -------------------------------------------------------------------------------------------


async def recover() -> str:
    out = StringIO()
    await sync_to_async(call_command)("durable_chat_recover", stdout=out)
    return out.getvalue()


async def test_the_command_says_what_it_did(chatter: Chatter) -> None:
    process = await doomed(chatter.id, "writing")
    waiting = await admitted(chatter, "m-2")
    await process.dies()
    assert await recover() == f"recovered {process.claim.run_id}\nbegan {waiting.run_id}\n"
    assert (await the_run(chatter.id)).state == "done"
    assert await recover() == ""


async def test_the_command_fails_while_the_streams_are_away(
    chatter: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await doomed(chatter.id, "writing")
    await process.dies()
    monkeypatch.setattr(backends, "get_streams", lambda: StreamClient(away))
    with pytest.raises(CommandError, match="streams"):
        await recover()
    monkeypatch.undo()
    assert process.claim.run_id in await recover()
