"""The warnings of `manage.py check`: each is given where it is due, and nowhere else."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.core.asgi import get_asgi_application
from django.core.checks import run_checks
from django.db import connections
from django.test import AsyncClient
from django.urls import path

from durable_chat.asgi import mount
from durable_chat.consumers import ConversationConsumer
from durable_chat.routing import websocket_urlpatterns
from tests.conftest import Chatter
from tests.test_read import django as django_door

STRONG = "a-long-and-random-text-of-the-hosts-own"
SAFE = {"DEBUG": False, "SECRET_KEY": STRONG, "ASGI_APPLICATION": "tests.test_warnings.mounted"}

sockets: Any = URLRouter(websocket_urlpatterns)
mounted = mount(get_asgi_application())
opened = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": AuthMiddlewareStack(sockets)})
guarded = ProtocolTypeRouter({"websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(sockets))})
within = ProtocolTypeRouter({"websocket": AuthMiddlewareStack(AllowedHostsOriginValidator(sockets))})
other_path: Any = path("x/", ConversationConsumer.as_asgi())
by_hand = ProtocolTypeRouter({"websocket": URLRouter([other_path])})
nothing = ProtocolTypeRouter({"http": get_asgi_application()})


def text(prompt: Any) -> str:
    return "an answer"


def streaming(prompt: Any) -> AsyncIterator[str]:
    return answering(prompt)


async def answering(prompt: Any) -> AsyncIterator[str]:
    yield "an answer"


def remote(url: str, secret: str = "s-1") -> dict[str, Any]:
    return {"DURABLE_CHAT": {"STREAMS": {"ELECTRIC_URL": url, "DS_SERVICE_ID": "svc", "DS_SECRET": secret}}}


def provider(name: str = "scripted", key: str = "") -> dict[str, Any]:
    backend = name if name == "scripted" else f"tests.test_warnings.{name}"
    return {"DURABLE_CHAT": {"PROVIDER": {"BACKEND": backend, "API_KEY": key}}}


def asgi(name: str) -> dict[str, Any]:
    return {"ASGI_APPLICATION": f"tests.test_warnings.{name}"}


def tokens(write: str, read: str) -> dict[str, Any]:
    return {"DURABLE_STREAMS": {"WRITE_TOKEN": write, "READ_TOKEN": read}}


def middleware(*names: str) -> dict[str, Any]:
    return {"MIDDLEWARE": [*names, "django.middleware.common.CommonMiddleware", SESSIONS, LOGINS]}


SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
LOGINS = "django.contrib.auth.middleware.AuthenticationMiddleware"


class Logins(AuthenticationMiddleware):
    """A host's own."""


MEMORY = {"DURABLE_STREAMS": {"STORE": "memory"}}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("number", "wrong", "right"),
    [
        ("W001", remote("http://streams.example"), remote("https://streams.example")),
        ("W001", remote("http://10.0.0.1:4437"), remote("http://127.0.0.1:4437")),
        ("W001", remote("http://localhost.evil.example"), remote("http://localhost:4437")),
        ("W001", remote("http://127.evil.example"), remote("http://[::1]:4437")),
        ("W002", asgi("opened"), asgi("guarded")),
        ("W002", asgi("by_hand"), asgi("within")),
        ("W002", asgi("opened"), asgi("nothing")),
        ("W002", asgi("opened"), asgi("missing")),
        ("W002", asgi("opened"), {"ASGI_APPLICATION": "tests.service.no_such.module"}),
        ("W003", MEMORY, MEMORY | {"DEBUG": True}),
        ("W003", MEMORY, MEMORY | remote("https://streams.example")),
        ("W004", tokens("t", "t"), tokens("t", "u")),
        ("W004", tokens(STRONG, ""), tokens("", "")),
        ("W004", remote("https://streams.example", "k") | tokens("k", "r"), tokens("w", "r")),
        ("W004", provider(key=STRONG), provider(key="k")),
        ("W006", middleware("django.middleware.gzip.GZipMiddleware"), middleware()),
        ("W006", middleware("django.middleware.http.ConditionalGetMiddleware"), middleware()),
        ("W007", {"SECRET_KEY": "django-insecure-x"}, {"SECRET_KEY": "django-insecure-x", "DEBUG": True}),
        ("W008", provider("text"), provider("streaming")),
        ("W008", provider("text"), provider("answering")),
        ("W010", {"DURABLE_STREAMS": {"ANONYMOUS": True}}, {"DURABLE_STREAMS": {"ANONYMOUS": False}}),
        ("W010", {"DURABLE_STREAMS": {"ANONYMOUS": True}}, {"DEBUG": True}),
        ("W011", {"MIDDLEWARE": [SESSIONS]}, {"MIDDLEWARE": [SESSIONS, f"{__name__}.Logins"]}),
        ("W011", {"MIDDLEWARE": [LOGINS, "no.such.one"]}, middleware()),
    ],
)
def test_each_warning_and_its_cure(
    settings: Any, number: str, wrong: dict[str, Any], right: dict[str, Any]
) -> None:
    assert number in warned(settings, wrong)
    assert warned(settings, right) == {}


def warned(settings: Any, given: dict[str, Any]) -> dict[str, str]:
    for name, value in (SAFE | {"DURABLE_CHAT": {}, "DURABLE_STREAMS": {}} | given).items():
        setattr(settings, name, value)
    found = [message for message in run_checks() if str(message.id).startswith("durable_chat.W")]
    assert all(message.hint for message in found)
    assert STRONG not in str(found)
    return {str(message.id).rpartition(".")[2]: message.msg for message in found}


@pytest.mark.django_db
@pytest.mark.parametrize(("age", "due"), [(0, False), (60, True), (None, True)])
def test_kept_connections(settings: Any, monkeypatch: pytest.MonkeyPatch, age: Any, due: bool) -> None:
    """As on PostgreSQL, whichever database this test runs on."""
    database: Any = connections["default"]
    monkeypatch.setitem(database.settings_dict, "CONN_MAX_AGE", age)
    assert "W005" not in warned(settings, {}) or database.vendor == "postgresql"
    monkeypatch.setattr(type(database), "vendor", "postgresql")
    assert ("W005" in warned(settings, {"DURABLE_STREAMS": {"SQLITE_PATH": "streams.sqlite3"}})) is due


@pytest.mark.django_db
@pytest.mark.parametrize("options", [{}, {"timeout": 20}, {"transaction_mode": "DEFERRED"}])
def test_writers_that_meet(settings: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    """As on SQLite, whichever database this test runs on."""
    database: Any = connections["default"]
    monkeypatch.setattr(type(database), "vendor", "sqlite")
    files = {"DURABLE_STREAMS": {"SQLITE_PATH": "streams.sqlite3"}}
    for given, due in ((options, True), ({"transaction_mode": "immediate"}, False)):
        monkeypatch.setitem(database.settings_dict, "OPTIONS", given)
        assert ("W009" in warned(settings, files)) is due
        assert "W009" not in warned(settings, files | {"DEBUG": True})


@pytest.mark.parametrize("accept", ["gzip", "identity"])
async def test_live_answers_pass_through_middleware_that_would_hold_them(
    chatter: Chatter, settings: Any, accept: str
) -> None:
    settings.MIDDLEWARE = [
        "django.middleware.gzip.GZipMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
        *settings.MIDDLEWARE,
    ]
    client = AsyncClient()  # one that has not loaded the site's own middleware yet
    client.cookies = chatter.http.cookies
    address = f"/api/chat-stream?id={chatter.id}&offset=-1"
    headers = {"accept-encoding": accept}
    async with django_door(client, f"{address}&live=sse", **headers) as answer:
        events = answer.events()
        await anext(events)
        await chatter.send("words=3")
        await chatter.idle()
        seen: list[Any] = []
        while not seen or seen[-1]["type"] != "RUN_FINISHED":
            name, data = await anext(events)
            seen += data if name == "data" else []
        await events.aclose()
    async with django_door(client, address, **headers) as answer:
        assert await answer.json() == seen
        tag = answer.headers["etag"]
    async with django_door(client, address, **headers, **{"if-none-match": tag}) as answer:
        assert answer.status == 304


def test_a_shared_secret_is_named_as_settings_write_it(settings: Any) -> None:
    found = warned(settings, remote("https://streams.example", "k") | tokens("k", "r"))
    assert 'DURABLE_CHAT["STREAMS"]["DS_SECRET"] and DURABLE_STREAMS["WRITE_TOKEN"]' in found["W004"]
