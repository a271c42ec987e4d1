"""The WebSocket: catch-up, live, resume inside a batch, and refusal."""

import asyncio
from typing import Any

import orjson
import pytest
from channels.testing import WebsocketCommunicator

from durable_chat import consumers
from durable_chat.asgi import mount
from durable_chat.messages import fold
from project.asgi import application
from tests.conftest import Chatter, words


class Socket:
    """A browser's WebSocket to a conversation."""

    def __init__(self, chatter: Chatter, path: str, *, origin: str = "http://localhost") -> None:
        cookies = "; ".join(f"{name}={m.value}" for name, m in chatter.http.cookies.items())
        headers = [
            (b"cookie", cookies.encode()),
            (b"origin", origin.encode()),
            (b"host", b"localhost"),
        ]
        self._communicator = WebsocketCommunicator(application, path, headers=headers)

    async def __aenter__(self) -> "Socket":
        self.connected, _ = await self._communicator.connect(timeout=5)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._communicator.disconnect()

    async def frame(self) -> dict[str, Any]:
        frame: dict[str, Any] = orjson.loads(await self._communicator.receive_from(timeout=5))
        return frame

    async def frames(self, *, until: str = "RUN_FINISHED") -> list[dict[str, Any]]:
        frames = [await self.frame()]
        while frames[-1]["chunk"]["type"] != until:
            frames.append(await self.frame())
        return frames

    async def output(self) -> dict[str, Any]:
        message: dict[str, Any] = await self._communicator.receive_output(timeout=5)
        return message

    async def silent(self) -> bool:
        """Whether it stays open without a word."""
        silent: bool = await self._communicator.receive_nothing()
        return silent

    async def ends(self) -> int:
        """The code that it is closed with, whatever it says until then. It is not waited for for ever."""
        async with asyncio.timeout(20):
            while (message := await self.output())["type"] == "websocket.send":
                continue
        code: int = message["code"]
        return code

    async def closed_with(self) -> int:
        message = await self.output()
        assert message["type"] == "websocket.close"
        code: int = message["code"]
        return code


async def test_catch_up_then_live(chatter: Chatter) -> None:
    await chatter.send("words=3")
    await chatter.idle()
    async with Socket(chatter, f"/ws/chat/{chatter.id}") as socket:
        caught_up = await socket.frames()
        await chatter.send("words=4 delay=5")
        live = await socket.frames()
    await chatter.idle()
    chunks = [frame["chunk"] for frame in caught_up + live]
    assert chunks == await chatter.chunks()
    assert [message.text() for message in fold(chunks)] == ["words=3", words(3), "words=4 delay=5", words(4)]
    ids = [frame["id"] for frame in caught_up + live]
    assert len(set(ids)) == len(ids)


async def test_resume_after_any_frame_misses_and_doubles_nothing(chatter: Chatter) -> None:
    """Also inside a batch: what was one page at first may be cut otherwise the next time."""
    await chatter.send("words=6")
    await chatter.idle()
    async with Socket(chatter, f"/ws/chat/{chatter.id}?offset=-1") as socket:
        frames = await socket.frames()
    await chatter.send("words=2")
    await chatter.idle()
    everything = await chatter.chunks()
    for number, frame in enumerate(frames[:-1], start=1):
        async with Socket(chatter, f"/ws/chat/{chatter.id}?offset={frame['id']}") as socket:
            rest = await socket.frames()
            more = await socket.frames()
        assert [f["chunk"] for f in rest + more] == everything[number:]


async def test_from_the_hydration_offset(chatter: Chatter) -> None:
    await chatter.send("words=2")
    await chatter.idle()
    offset = (await chatter.hydrate())["offset"]
    async with Socket(chatter, f"/ws/chat/{chatter.id}/?offset={offset}") as socket:
        await chatter.send("words=3")
        frames = await socket.frames()
    assert fold(frame["chunk"] for frame in frames)[1].text() == words(3)
    assert frames[0]["id"] == f"{offset}.0"


async def test_a_stranger_is_accepted_and_closed_with_4404(chatter: Chatter) -> None:
    stranger = Chatter()
    await stranger.begin()
    for path in (f"/ws/chat/{chatter.id}", "/ws/chat/nothing-here", "/ws/chat/%20"):
        async with Socket(stranger, path) as socket:
            assert socket.connected
            assert await socket.closed_with() == 4404


async def test_an_offset_that_was_never_issued(chatter: Chatter) -> None:
    for offset in ("x,y", "1.x", ".1", "-1.-3", "-1.99999", "now.4", "-1.%D9%A1", "-1." + "9" * 5000):
        async with Socket(chatter, f"/ws/chat/{chatter.id}?offset={offset}") as socket:
            assert await socket.closed_with() == 4400


async def test_another_sites_page_is_refused(chatter: Chatter) -> None:
    for origin in ("https://evil.example", "https://[", "https://localhost:99999999"):
        async with Socket(chatter, f"/ws/chat/{chatter.id}", origin=origin) as socket:
            assert not socket.connected


async def test_a_socket_of_the_hosts_own_goes_to_the_host() -> None:
    heard = []

    async def host(scope: Any, receive: Any, send: Any) -> None:
        heard.append(scope["path"])

    await mount(host)({"type": "websocket", "path": "/ws/other/"}, None, None)
    assert heard == ["/ws/other/"]


async def test_a_socket_that_nobody_takes_is_refused(chatter: Chatter) -> None:
    async with Socket(chatter, "/ws/other/") as socket:
        assert not socket.connected


async def test_pings(chatter: Chatter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "PING_SECONDS", 0.01)
    async with Socket(chatter, f"/ws/chat/{chatter.id}") as socket:
        assert await socket.frame() == {"type": "ping"}


async def test_a_socket_that_leaves_leaves_nothing_behind(chatter: Chatter) -> None:
    before = asyncio.all_tasks()
    for _ in range(5):
        async with Socket(chatter, f"/ws/chat/{chatter.id}"):
            await chatter.send("words=1")
            await chatter.idle()
    assert asyncio.all_tasks() == before
