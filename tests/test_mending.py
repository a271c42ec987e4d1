"""Streams that are lost, and sites that move from one service to another: the chat goes on, whole."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from durable_chat import backends
from durable_chat.answers import snapshot
from durable_chat.connections import in_database
from durable_chat.marks import outward
from durable_chat.messages import fold
from durable_chat.models import Conversation, Run
from durable_chat.runs import loop, mending, progress, tombs
from durable_chat.runs import recover as recovery
from durable_chat.runs.claim import Claim, take_over
from durable_chat.runs.mending import mend
from durable_chat.streams.protocol.errors import StreamNotFound, Unavailable
from durable_chat.streams.protocol.offsets import START
from tests import service
from tests.conftest import Chatter, the_run, words
from tests.test_read import bare
from tests.test_websocket import Socket

SAID = [("user", "words=3"), ("assistant", words(3))]
DOORS = ("page", "sse", "socket", "run", "send", "submit")


async def row(chatter: Chatter) -> Conversation:
    conversation: Conversation = await Conversation.objects.aget(pk=chatter.id)
    return conversation


async def lose(chatter: Chatter) -> str:
    """Behind the site's back. The path that was."""
    path = (await row(chatter)).stream_path
    await backends.get_streams().delete(path)
    return path


async def talk(chatter: Chatter, text: str = "words=3") -> None:
    assert (await chatter.send(text)).status_code == 202
    await chatter.idle()


async def page(chatter: Chatter, offset: str = START) -> list[Any]:
    """All that a durable client reads from there on."""
    address = f"/api/chat-stream?id={chatter.id}&offset={offset}"
    async with bare(chatter.http, address) as answer:
        assert answer.status == 200, await answer.body()
        chunks: list[Any] = await answer.json()
        return chunks


async def knock(chatter: Chatter, door: str) -> None:
    """The first who comes after the loss."""
    match door:
        case "page":
            await page(chatter)
        case "sse":
            address = (
                f"/api/chat-stream?id={chatter.id}&live=sse&offset={(await chatter.hydrate())['offset']}"
            )
            async with bare(chatter.http, address) as answer:
                assert answer.status == 200
        case "socket":
            async with Socket(chatter, f"/ws/chat/{chatter.id}") as socket:
                assert await socket.closed_with() == 4503
        case "run":
            run = await the_run(chatter.id)
            async with bare(chatter.http, f"/api/chat-stream?id={chatter.id}&run={run.pk}") as answer:
                assert answer.status == 200
        case "send":
            await talk(chatter)
        case "submit":
            assert (await chatter.submit("words=3")).status_code == 201
            await chatter.idle()


async def assert_whole(chatter: Chatter) -> None:
    """Hydration, the stream and every reader of it agree, and the rows' offset is its tail."""
    hydrated = await chatter.hydrate()
    batch = await backends.get_streams().read((await row(chatter)).stream_path)
    assert hydrated["offset"] == outward((await row(chatter)).mark, batch.offset)
    shown = [(message["id"], message["parts"]) for message in hydrated["messages"]]
    assert [(message.id, list(message.parts)) for message in fold(batch.items)] == shown
    assert await page(chatter) == list(batch.items)
    assert await page(chatter, hydrated["offset"]) == []


@pytest.mark.parametrize("door", DOORS)
async def test_a_lost_stream_begins_anew_with_the_rows(chatter: Chatter, door: str) -> None:
    await talk(chatter)
    lost = await lose(chatter)
    assert await chatter.texts() == SAID
    await knock(chatter, door)
    first, *rest = await chatter.chunks()
    assert first["type"] == "MESSAGES_SNAPSHOT"
    assert bool(rest) == (door in ("send", "submit"))
    assert (await row(chatter)).stream_path.startswith(f"{lost}-")
    assert await chatter.texts() == (SAID * 2 if rest else SAID)
    await assert_whole(chatter)
    await talk(chatter, "words=2")
    assert (await chatter.texts())[-2:] == [("user", "words=2"), ("assistant", words(2))]
    await assert_whole(chatter)


@pytest.mark.parametrize("door", DOORS)
async def test_a_chat_in_which_nothing_was_said_keeps_its_path(site: None, door: str) -> None:
    chatter = Chatter()
    await chatter.begin()
    if door == "run":
        return
    path = await lose(chatter)
    await knock(chatter, door)
    assert (await row(chatter)).stream_path == path
    await talk(chatter)
    await assert_whole(chatter)


async def test_a_reader_of_the_lost_stream_is_told_all_anew(chatter: Chatter) -> None:
    await talk(chatter)
    offsets = ["0000000000000002", (await chatter.hydrate())["offset"], "0000000000000000"]
    ids = [f"{offset}.0" for offset in offsets]
    await lose(chatter)
    for offset in offsets:
        assert [chunk["type"] for chunk in await page(chatter, offset)] == ["MESSAGES_SNAPSHOT"]
        address = f"/api/chat-stream?id={chatter.id}&offset={offset}&live=sse"
        async with bare(chatter.http, address) as answer:
            async for name, data in answer.events():
                assert (name, data[0]["type"]) == ("data", "MESSAGES_SNAPSHOT")
                break
    for id in ids:
        async with Socket(chatter, f"/ws/chat/{chatter.id}?offset={id}") as socket:
            assert (await socket.frame())["chunk"]["type"] == "MESSAGES_SNAPSHOT"


async def test_a_stream_that_ends_before_the_rows_do_is_another_one(chatter: Chatter) -> None:
    await talk(chatter)
    path = await lose(chatter)
    await backends.get_streams().create(path)
    assert fold(await page(chatter)) == fold(await chatter.chunks())
    assert (await row(chatter)).stream_path != path
    await assert_whole(chatter)
    await loop.call(tombs.erase)
    with pytest.raises(StreamNotFound):
        await backends.get_streams().head(path)


async def test_it_is_found_by_a_socket_and_by_a_send_too(chatter: Chatter) -> None:
    for find in (lambda: knock(chatter, "socket"), lambda: talk(chatter)):
        await talk(chatter)
        path = await lose(chatter)
        await backends.get_streams().create(path)
        await find()
        assert (await row(chatter)).stream_path != path
        await assert_whole(chatter)


async def test_many_at_once_do_it_once(chatter: Chatter) -> None:
    await talk(chatter)
    await lose(chatter)
    before = (await row(chatter)).epoch
    await asyncio.gather(*(loop.call(mend, chatter.id) for _ in range(8)))
    assert (await row(chatter)).epoch == before + 1
    assert len(await chatter.chunks()) == 1
    await assert_whole(chatter)


@pytest.mark.parametrize("after", ["_leave", "create"])
async def test_whoever_dies_in_it_is_followed_by_another(
    chatter: Chatter, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    await talk(chatter)
    await lose(chatter)

    async def dies(streams: Any, conversation_id: str) -> None:
        if after == "create":
            path, _, messages = await in_database(mending._rows, conversation_id)
            await streams.create(path, body=orjson.dumps([snapshot(messages)]))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(mending, "_begin", dies)
        with pytest.raises(KeyboardInterrupt):
            await mend(chatter.id)
    assert await chatter.texts() == SAID
    assert [chunk["type"] for chunk in await page(chatter)] == ["MESSAGES_SNAPSHOT"]
    await talk(chatter)
    assert await chatter.texts() == SAID * 2
    await assert_whole(chatter)


@pytest.mark.parametrize("by", ["send", "recovery"])
async def test_a_stream_that_is_not_mended_in_time_is_made_whole_by_the_run(
    chatter: Chatter, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    from tests.test_recovery import doomed

    async def away(streams: Any, conversation_id: str) -> None:
        raise Unavailable

    await talk(chatter)
    await lose(chatter)
    with monkeypatch.context() as patched:
        patched.setattr(mending, "_begin", away)  # for as long as the mending tries, and no longer
        if by == "send":
            await talk(chatter)
        else:
            with pytest.raises(Unavailable):
                await mend(chatter.id)
            await (await doomed(chatter.id, "claimed")).dies()
            await chatter.hydrate()
    assert await chatter.texts() == (SAID * 2 if by == "send" else SAID)
    await assert_whole(chatter)


async def test_who_gives_a_lost_run_up_too_late_leaves_it_to_the_next(
    chatter: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slower than its own lease: another has taken the run over meanwhile."""
    from tests.test_recovery import doomed

    def late(claim: Claim) -> str:
        progress.abandon(claim)
        assert take_over(claim.conversation_id, holder="another", lease_seconds=30)
        return real(claim)

    process = await doomed(chatter.id, "writing")
    await process.dies()
    await lose(chatter)
    real = recovery._forsake
    monkeypatch.setattr(recovery, "_forsake", late)
    assert (await chatter.hydrate())["activeRun"]["runId"] == process.claim.run_id


async def test_a_run_whose_stream_goes_ends_by_its_rules(chatter: Chatter) -> None:
    await talk(chatter)
    await chatter.send("words=1000 delay=5")
    run = await the_run(chatter.id)
    await lose(chatter)
    async with bare(chatter.http, f"/api/chat-stream?id={chatter.id}&offset=-1") as answer:
        assert answer.status in (200, 503)
    await chatter.idle()
    chunks = await page(chatter)
    assert [chunk["type"] for chunk in chunks] == ["MESSAGES_SNAPSHOT"]
    assert await chatter.texts() == [*SAID, ("user", "words=1000 delay=5")]
    await run.arefresh_from_db()
    assert (run.state, run.start_offset) == (Run.State.INTERRUPTED, Run.LOST)
    assert (await chatter.hydrate())["failure"]["runId"] == run.pk
    await assert_whole(chatter)
    await talk(chatter)
    await assert_whole(chatter)


@pytest.mark.parametrize("offset", ["-1", f"{3:016d}", "now"])
@pytest.mark.parametrize("live", ["", "&live=sse"])
async def test_the_view_of_a_run_whose_log_is_lost_is_closed(
    chatter: Chatter, offset: str, live: str
) -> None:
    await talk(chatter)
    run = await the_run(chatter.id)
    await lose(chatter)
    address = f"/api/chat-stream?id={chatter.id}&run={run.pk}&offset={offset}{live}"
    async with bare(chatter.http, address) as answer:
        if live:
            events = [event async for event in answer.events()]
            assert events[-1][1]["streamClosed"]
            items = [item for name, data in events if name == "data" for item in data]
        else:
            assert answer.headers["stream-closed"] == "true"
            items = await answer.json()
    assert items[-1]["type"] == "finish"
    said = "".join(item.get("delta", "") for item in items)
    assert said == (words(3) if offset == "-1" else "")


@pytest.fixture
def at(settings: Any, shared_service: service.Service) -> Callable[[str], None]:
    """Moves the site."""

    def moved(where: str) -> None:
        streams = dict(shared_service.env) if where == "remote" else {}
        settings.DURABLE_CHAT = {**settings.DURABLE_CHAT, "STREAMS": streams}

    return moved


async def test_there_and_back_again(site: None, at: Callable[[str], None]) -> None:
    chatter, quiet, offsets = Chatter(), Chatter(), [START, "0000000000000000"]
    await chatter.begin()
    await quiet.begin()
    expected: list[tuple[str, str]] = []
    for where in ("embedded", "remote", "embedded", "remote"):
        at(where)
        assert await chatter.texts() == expected
        if expected:  # whoever comes first, with whatever offset of wherever
            for offset in offsets:
                assert fold(await page(chatter, offset)) == fold(await chatter.chunks())
        await talk(chatter)
        expected += SAID
        await assert_whole(chatter)
        offsets.append((await chatter.hydrate())["offset"])
        assert await page(quiet, "0000000000000000") == []
    await talk(quiet)
    assert await quiet.texts() == SAID
    at("embedded")  # where a stream of that name is, with nothing in it
    assert fold(await page(quiet)) != ()
    assert await quiet.texts() == SAID
    await assert_whole(quiet)


async def test_a_run_that_was_cut_off_by_the_move_is_recovered_there(
    site: None, at: Callable[[str], None]
) -> None:
    from tests.test_recovery import doomed

    chatter = Chatter()
    await chatter.begin()
    process = await doomed(chatter.id, "writing")
    await process.dies()
    at("remote")
    assert await chatter.texts() == [("user", "words=3")]
    await assert_whole(chatter)
    await talk(chatter)
    await assert_whole(chatter)
