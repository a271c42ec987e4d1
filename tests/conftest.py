"""Fixtures of the chat half: a site in this process, with a real database, a real store and real runs."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.db import connections
from django.test import AsyncClient
from hypothesis import HealthCheck, settings

from durable_chat import backends
from durable_chat.models import Conversation, Run
from durable_chat.runs import sweep
from durable_chat.streams.client import StreamClient
from durable_chat.streams.embedded import process
from durable_chat.testing import drain
from tests import service

# A slow machine is no failure: nothing here is timed.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where the services are said to be there, what is skipped has failed."""
    report = yield
    if report.skipped and os.environ.get("REQUIRE_SERVICES") == "1":
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A file: runs write from threads of their own, which SQLite's in-memory test database cannot serve."""
    database = connections["default"]
    if database.vendor == "sqlite":
        database.settings_dict["TEST"]["NAME"] = str(tmp_path_factory.mktemp("site") / "db.sqlite3")


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> Iterator[None]:
    """Everybody lets go of the test database before it is dropped, which PostgreSQL refuses otherwise."""
    yield
    process.close()
    asyncio.run(sync_to_async(connections.close_all)())  # the thread in which async tests use the ORM


@pytest.fixture(scope="session")
def shared_service() -> Iterator[service.Service]:
    """A streams service for all who only use it."""
    with service.running() as running:
        yield running


@pytest.fixture(scope="session", params=["embedded", "remote"])
def streams_env(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """Where a live server's streams are, by its environment: whatever uses this is tested on both."""
    if request.param == "embedded":
        return {}
    remote: service.Service = request.getfixturevalue("shared_service")
    return remote.env


@pytest.fixture
def site(transactional_db: None) -> Iterator[None]:
    """A database that runs may write to; no run outlives the test."""
    yield
    drain()


@pytest.fixture(scope="session", autouse=True)
def streams_server() -> Iterator[None]:
    """The embedded server's threads and file end with the tests."""
    yield
    process.close()


@pytest.fixture(scope="session", autouse=True)
def no_sweep() -> Iterator[None]:
    """What a test leaves lying stays there until it looks, or asks for `sweep.sweep` itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "start", lambda: None)
        yield


@pytest.fixture
def streams(site: None) -> StreamClient:
    return backends.get_streams()


class Chatter:
    """Somebody with a browser session, speaking to the views as the clients do."""

    def __init__(self, **options: Any) -> None:
        self.http = AsyncClient(**options)
        self.id = ""

    async def begin(self, **fields: Any) -> str:
        """Create a conversation and make it the one that the other methods speak of."""
        response = await self.post("/api/conversations", fields)
        assert response.status_code == 201, response.content
        self.id = response.json()["id"]
        return self.id

    async def post(self, path: str, body: Any, **headers: str) -> Any:
        return await self.http.post(path, body, content_type="application/json", headers=headers)

    async def send(self, text: str, *, id: str | None = None) -> Any:
        """As the TanStack durable transport sends."""
        message = {"id": id or new_id(), "role": "user", "parts": [{"type": "text", "content": text}]}
        return await self.post(f"/api/chat?id={self.id}", {"messages": [message]})

    async def submit(self, text: str, *, id: str | None = None, trigger: str = "submit-message") -> Any:
        """As the AI SDK durable transport sends."""
        message = {"id": id or new_id(), "role": "user", "parts": [{"type": "text", "text": text}]}
        body = {"id": self.id, "messages": [message], "trigger": trigger, "messageId": None}
        return await self.post("/api/chat", body)

    async def hydrate(self) -> dict[str, Any]:
        response = await self.http.get(f"/api/conversations/{self.id}")
        assert response.status_code == 200, response.content
        hydrated: dict[str, Any] = response.json()
        return hydrated

    async def texts(self) -> list[tuple[str, str]]:
        """(role, text) of every message, as hydration shows them."""
        messages = (await self.hydrate())["messages"]
        return [
            (m["role"], "".join(p["content"] for p in m["parts"] if p["type"] == "text")) for m in messages
        ]

    async def idle(self) -> None:
        """Until no run of this process is active."""
        await _drained()

    async def chunks(self) -> list[dict[str, Any]]:
        """Everything in the conversation's stream."""
        return await stored(self.id)


async def _drained() -> None:
    from durable_chat.runs import heart, loop

    await loop.call(heart.drain)


async def stored(conversation_id: str, *, until: str | None = None) -> list[dict[str, Any]]:
    """The chunks of a conversation's stream, straight from the streams client."""
    conversation = await Conversation.objects.aget(pk=conversation_id)
    batch = await backends.get_streams().read(conversation.stream_path)
    assert batch.up_to_date
    assert until is None or batch.offset == until
    return list(batch.items)


def new_id() -> str:
    return f"m-{uuid.uuid4()}"


def words(count: int) -> str:
    """What the scripted provider answers to `words=<count>`."""
    return "".join(f"w{number} " for number in range(count))


@pytest.fixture
async def chatter(site: None) -> AsyncIterator[Chatter]:
    chatter = Chatter()
    await chatter.begin()
    yield chatter
    await _drained()


async def somebody(name: str, **fields: Any) -> Chatter:
    """A signed-in user."""
    chatter = Chatter()
    user = await get_user_model().objects.acreate(username=name, **fields)
    await chatter.http.aforce_login(user)
    return chatter


@pytest.fixture
async def ada(site: None) -> AsyncIterator[Chatter]:
    """The owner of a conversation."""
    ada = await somebody("ada", first_name="Ada", last_name="Lovelace", email="ada@secret.example")
    await ada.begin()
    yield ada
    await ada.idle()


async def the_run(conversation_id: str) -> Run:
    run: Run = await Run.objects.filter(conversation_id=conversation_id).alatest("created_at")
    return run
