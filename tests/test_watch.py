"""Live connections are authorised again while they last: who may no longer read is shown out."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from channels.auth import AuthMiddlewareStack
from channels.routing import URLRouter
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.core.exceptions import PermissionDenied
from django.test import AsyncClient, Client

from durable_chat.asgi import mount
from durable_chat.consumers import CLOSE_TRY_AGAIN
from durable_chat.models import Conversation, Member, Visitor
from durable_chat.permissions import may
from durable_chat.routing import websocket_urlpatterns
from durable_chat.testing import drain
from durable_chat.views import watch
from project.asgi import application
from tests import test_websocket
from tests.conftest import Chatter
from tests.test_read import bare
from tests.test_read import django as django_door
from tests.test_sharing import let_in, members
from tests.test_websocket import Socket
from tests.test_wsgi import chunks, post

BRIEFLY = {"REAUTHORISE_SECONDS": 0.1}


async def removed(owner: Chatter, member: Chatter) -> None:
    assert (await owner.http.delete(members(owner, "bob"))).status_code == 204


async def logged_out(owner: Chatter, member: Chatter) -> None:
    await member.http.alogout()


async def session_gone(owner: Chatter, member: Chatter) -> None:
    session_key = member.http.cookies["sessionid"].value
    await Session.objects.filter(session_key=session_key).adelete()


async def password_changed(owner: Chatter, member: Chatter) -> None:
    user = await get_user_model().objects.aget(username="bob")
    user.set_password("another")
    await user.asave()


async def deactivated(owner: Chatter, member: Chatter) -> None:
    await get_user_model().objects.filter(username="bob").aupdate(is_active=False)


async def conversation_gone(owner: Chatter, member: Chatter) -> None:
    """The stream goes too: whichever is noticed first, the reader is shown out."""
    await Conversation.objects.filter(pk=owner.id).adelete()


ENDS = [removed, logged_out, session_gone, password_changed, deactivated, conversation_gone]
Ends = Callable[[Chatter, Chatter], Awaitable[None]]


@asynccontextmanager
async def talking(chatter: Chatter) -> AsyncIterator[None]:
    """While somebody says something again and again; for less than a live read lasts if nobody ends it."""

    async def talk() -> None:
        while (await chatter.send("words=1")).status_code == 202:
            await chatter.idle()

    task = asyncio.create_task(talk())
    try:
        async with asyncio.timeout(40):
            yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("get", [bare, django_door], ids=["mounted", "view"])
async def test_a_live_read_ends(
    ada: Chatter,
    settings: Any,
    ends: Ends,
    get: Any,
) -> None:
    settings.DURABLE_CHAT = BRIEFLY
    bob = await let_in(ada, "bob")
    path = f"/api/chat-stream?id={ada.id}&offset=-1"
    async with get(bob.http, f"{path}&live=sse") as answer:
        assert answer.status == 200
        events = answer.events()
        await anext(events)
        await ends(ada, bob)
        async with talking(ada):
            async for _ in events:
                continue
    async with get(bob.http, path) as answer:
        assert answer.status == 404
        assert list(await answer.json()) == ["error"]


@pytest.mark.parametrize("get", [bare, django_door], ids=["mounted", "view"])
async def test_the_view_of_a_run_ends_in_mid_answer(
    ada: Chatter,
    settings: Any,
    get: Any,
) -> None:
    settings.DURABLE_CHAT = BRIEFLY
    bob = await let_in(ada, "bob")
    location = (await ada.submit("words=3000 delay=10"))["Location"]
    seen = []
    async with get(bob.http, f"{location}&offset=-1&live=sse") as answer:
        async for _, data in answer.events():
            if not seen:
                await removed(ada, bob)
            seen.append(data)
    assert not any(isinstance(data, dict) and data.get("streamClosed") for data in seen)
    await ada.post(f"/api/chat/{ada.id}/stop", {})


@pytest.mark.parametrize("get", [bare, django_door], ids=["mounted", "view"])
async def test_a_long_poll_tells_nothing_that_was_said_afterwards(
    ada: Chatter,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    get: Any,
) -> None:
    settings.DURABLE_CHAT = {"PERMISSION": "tests.test_watch.noting"}
    bob = await let_in(ada, "bob")
    offset = (await ada.hydrate())["offset"]
    async with get(bob.http, f"/api/chat-stream?id={ada.id}&offset={offset}") as answer:
        offset = answer.headers["stream-next-offset"]
    clock = Clock()
    monkeypatch.setattr(watch, "time", clock)
    NOTED.clear()

    async def polled() -> tuple[int, bytes]:
        async with get(bob.http, f"/api/chat-stream?id={ada.id}&offset={offset}&live=long-poll") as answer:
            return answer.status, await answer.body()

    polling = asyncio.create_task(polled())
    await asyncio.to_thread(NOTED.wait)
    clock.ahead = 31
    await removed(ada, bob)
    await ada.send("a secret")
    status, body = await polling
    assert status == 404
    assert b"secret" not in body


class Clock:
    """Time, which a test may put ahead."""

    ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


NOTED = threading.Event()


def noting(visitor: Visitor, conversation: Conversation, action: Any) -> bool:
    NOTED.set()
    return may(visitor, conversation, action)


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("routing", ["mounted", "channels"])
async def test_a_websocket_is_closed_with_4404(
    ada: Chatter,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    ends: Ends,
    routing: str,
) -> None:
    settings.DURABLE_CHAT = BRIEFLY
    if routing == "channels":
        own: Any = AuthMiddlewareStack(URLRouter(websocket_urlpatterns))
        monkeypatch.setattr(test_websocket, "application", own)
    bob = await let_in(ada, "bob")
    async with Socket(bob, f"/ws/chat/{ada.id}") as socket:
        assert await socket.frame() == {"type": "ping"}
        await ends(ada, bob)
        assert await socket.ends() in ((4404, CLOSE_TRY_AGAIN) if ends is conversation_gone else (4404,))


async def test_who_may_go_on_goes_on(
    ada: Chatter,
    settings: Any,
) -> None:
    settings.DURABLE_CHAT = BRIEFLY
    bob = await let_in(ada, "bob", "writer")
    async with bare(bob.http, f"/api/chat-stream?id={ada.id}&offset=-1&live=sse") as answer:
        events = answer.events()
        await anext(events)
        await bob.send("words=40 delay=20")
        async for name, data in events:
            if name == "data" and data[-1]["type"] == "RUN_FINISHED":
                break
        await events.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize("permission", ["broken", "away"])
async def test_a_permission_that_fails_closes(
    ada: Chatter,
    settings: Any,
    permission: str,
) -> None:
    settings.DURABLE_CHAT = BRIEFLY
    async with Socket(ada, f"/ws/chat/{ada.id}") as socket:
        assert await socket.frame() == {"type": "ping"}
        settings.DURABLE_CHAT = BRIEFLY | {"PERMISSION": f"{__name__}.{permission}"}
        assert await socket.ends() == CLOSE_TRY_AGAIN


def broken(visitor: Visitor, conversation: Conversation, action: str) -> bool:
    raise ZeroDivisionError


def away(visitor: Visitor, conversation: Conversation, action: str) -> bool:
    """As one that asks a directory over the network: no error of the socket's own."""
    raise ConnectionRefusedError


def test_under_wsgi(site: None, settings: Any) -> None:
    settings.DURABLE_CHAT = BRIEFLY
    users = get_user_model().objects
    owner, client = Client(), Client()
    owner.force_login(users.create(username="ada"))
    bob = users.create(username="bob")
    client.force_login(bob)
    post(owner, "/api/conversations", {"id": "watched"})
    Member.objects.create(conversation_id="watched", user=bob)
    live = client.get("/api/chat-stream?id=watched&offset=-1&live=sse")
    read = chunks(live.streaming_content)
    message = {"id": "m-1", "role": "user", "parts": [{"type": "text", "content": "words=3000 delay=10"}]}
    assert post(owner, "/api/chat?id=watched", {"messages": [message]}).status_code == 202
    seen = [next(read)]
    client.logout()
    seen += read  # ends by itself
    assert "RUN_FINISHED" not in str(seen)
    live.close()
    post(owner, "/api/chat/watched/stop", {})
    drain()


# --- hosts that authenticate otherwise ---------------------------------------------------------------------


async def by_token(scope: Any) -> Any:
    """A host's own scheme: the user whose name is the bearer token."""
    token = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
    if token == "barred":
        raise PermissionDenied
    return await get_user_model().objects.filter(username=token).afirst()


async def by_name(scope: Any) -> Visitor:
    user = await by_token(scope)
    return Visitor(user_id=user.pk) if user else Visitor()


@pytest.mark.parametrize("authenticate", [by_token, by_name, "tests.test_watch.by_token"])
async def test_a_host_that_authenticates_otherwise(
    ada: Chatter,
    settings: Any,
    authenticate: Any,
) -> None:
    settings.DURABLE_CHAT = BRIEFLY
    mounted = mount(application, authenticate=authenticate)
    path = f"/api/chat-stream?id={ada.id}&offset=-1"
    for token, status in (("ada", 200), ("bob", 404), ("barred", 404)):
        header = {"authorization": f"Bearer {token}"}
        async with bare(AsyncClient(), path, application=mounted, **header) as answer:
            assert answer.status == status
    async with bare(ada.http, path, application=mounted) as answer:
        assert answer.status == 404, "the session is not asked"
    async with bare(
        AsyncClient(), f"{path}&live=sse", application=mounted, authorization="Bearer ada"
    ) as answer:
        events = answer.events()
        await anext(events)
        await get_user_model().objects.filter(username="ada").aupdate(username="eva")
        async with talking(ada):
            async for _ in events:
                continue


# --- origins -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://app.example.com", True),
        ("https://a.sub.example.com", True),
        ("http://app.example.com", False),
        ("https://app.example.com:444", False),
        ("https://app.example.com:x", False),
        ("https://app.example.com:99999999", False),
        ("https://[", False),
        ("https://app.example.com.evil.example", False),
        ("null", False),
        ("http://localhost", False),
    ],
)
async def test_allowed_origins(chatter: Chatter, settings: Any, origin: str, allowed: bool) -> None:
    settings.DURABLE_CHAT = {"ALLOWED_ORIGINS": ["https://app.example.com", "https://.sub.example.com"]}
    async with Socket(chatter, f"/ws/chat/{chatter.id}", origin=origin) as socket:
        assert socket.connected is allowed
    async with bare(chatter.http, f"/api/chat-stream?id={chatter.id}&offset=-1", origin=origin) as answer:
        assert answer.headers["vary"] == "Origin"
        assert answer.headers.get("access-control-allow-origin") == (origin if allowed else None)
        if allowed:
            assert answer.headers["access-control-allow-credentials"] == "true"
            assert "Stream-Next-Offset" in answer.headers["access-control-expose-headers"]
