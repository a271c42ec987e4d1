"""Live answers to many readers at once: what they share, what each has of its own, and how they end."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from durable_chat.streams.protocol import cursors
from durable_chat.streams.protocol.exchange import Request, Response
from durable_chat.streams.server import StreamServer
from durable_chat.streams.stores.memory import MemoryStore
from tests.streams.door import JSON, Door, control
from tests.streams.hub_contract import nothing_is_left
from tests.streams.test_hub import settled
from tests.streams.test_protocol import sse_events

FAR = 99_999_999  # a cursor that the clock will not reach


@pytest.fixture
def server() -> StreamServer:
    return StreamServer(MemoryStore())


@pytest.fixture
async def ask(server: StreamServer) -> Door:
    ask = Door(server.handle, "a")
    await ask("PUT", headers=JSON)
    return ask


async def pieces(server: StreamServer, **query: str) -> AsyncIterator[bytes]:
    response = await server.handle(Request("GET", "a", {"offset": "now", "live": "sse", **query}))
    async with response:
        assert not isinstance(response.body, bytes)
        async for piece in response.body:
            yield piece


def cursor_of(piece: bytes) -> int:
    return int(control(sse_events(piece)[-1])["streamCursor"])


async def test_readers_are_sent_the_same_bytes(server: StreamServer, ask: Door) -> None:
    async with aclosing(pieces(server)) as one, aclosing(pieces(server)) as other:
        for body in (one, other):
            await anext(body)
        waiting = [asyncio.create_task(anext(body)) for body in (one, other)]
        await settled()
        await ask("POST", b"[1]", JSON)
        first, second = await asyncio.gather(*waiting)
        assert first is second
        assert sse_events(first)[0] == ("data", "[1]")


async def test_a_reader_whose_cursor_is_ahead_has_one_of_its_own(server: StreamServer, ask: Door) -> None:
    this = int(cursors.issue(None, now=time.time(), jitter=0))
    async with aclosing(pieces(server, cursor=str(FAR))) as ahead, aclosing(pieces(server)) as usual:
        mine = cursor_of(await anext(ahead))
        assert mine > FAR
        assert cursor_of(await anext(usual)) in (this, this + 1)
        for number in range(3):
            await ask("POST", b"%d" % number, JSON)
            piece = await anext(ahead)
            assert cursor_of(piece) == mine
            shared = await anext(usual)
            assert cursor_of(shared) in (this, this + 1)
            assert sse_events(piece)[0] == sse_events(shared)[0] == ("data", f"[{number}]")


async def test_shared_cursors_advance_and_never_go_back(
    server: StreamServer, ask: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    this = int(cursors.issue(None, now=now, jitter=0))
    async with aclosing(pieces(server)) as usual, aclosing(pieces(server, cursor=str(this))) as ahead:
        seen = [cursor_of(await anext(usual))]
        begun = cursor_of(await anext(ahead))
        assert begun > this == seen[0]
        for number in range(3):
            now += 20.0
            await ask("POST", b"%d" % number, JSON)
            seen.append(cursor_of(await anext(usual)))
            assert cursor_of(await anext(ahead)) == max(begun, seen[-1])
        assert seen == [this, this + 1, this + 2, this + 3]
        now += 20.0 * cursors.MAX_JITTER
        await ask("POST", b"4", JSON)
        assert await anext(ahead) is await anext(usual)  # the clock has caught up with it


async def test_a_store_that_fails_ends_every_answer(server: StreamServer, ask: Door) -> None:
    async def to_the_end() -> list[bytes]:
        return [piece async for piece in pieces(server)]

    reading = [asyncio.create_task(to_the_end()) for _ in range(3)]
    polling = asyncio.create_task(ask("GET", offset="now", live="long-poll"))
    await settled()
    assert isinstance(server.store, MemoryStore)
    server.store.close()
    assert [len(answer) for answer in await asyncio.gather(*reading)] == [1, 1, 1]
    assert (await polling).status == 503
    assert nothing_is_left()


async def test_long_polls_share_a_tail_and_leave_none(server: StreamServer, ask: Door) -> None:
    polls = [asyncio.create_task(ask("GET", offset="now", live="long-poll")) for _ in range(5)]
    await settled()
    assert len(asyncio.all_tasks()) == 1 + 5 + 1
    await ask("POST", b"[1]", JSON)
    answers: list[Response] = await asyncio.gather(*polls)
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"[1]")] * 5
    assert len({answer.headers["etag"] for answer in answers}) == 1
    assert nothing_is_left()
