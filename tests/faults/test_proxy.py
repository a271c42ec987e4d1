"""The read proxy over a real service, at every door: what readers see, and what the service does."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest

from durable_chat.streams.client.sse import Decoder
from tests import service
from tests.clients.visitor import Visitor, texts, words
from tests.faults.conftest import Serve
from tests.faults.people import Person, until
from tests.live import LiveServer, ServerName
from tests.service import Exchange
from tests.service.gate import garbage, login_page, refusal

EVERYWHERE: list[ServerName] = ["uvicorn", "daphne", "unmounted", "wsgi"]
ASYNC: list[ServerName] = ["uvicorn", "daphne", "unmounted"]
NEVER_AGAIN = 100  # as often as anybody may ask


@pytest.fixture
def streams() -> Iterator[service.Service]:
    with service.running() as running:
        yield running


@pytest.fixture
def site(serve: Serve, streams: service.Service, kind: ServerName) -> LiveServer:
    return serve(kind=kind, **streams.env)


@pytest.fixture
async def person(site: LiveServer) -> AsyncIterator[Person]:
    async with Person(site.base) as person:
        yield person


class Listener:
    """One live read, from the beginning. Whether it has ended is known, and what it brought."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.chunks: list[dict[str, Any]] = []
        self.ended = False

    async def listen(self) -> None:
        decoder = Decoder()
        async for piece in self.response.aiter_bytes():
            for event in decoder.feed(piece):
                if event.name == "data":
                    self.chunks += orjson.loads(event.data)
        self.ended = True

    def heard(self, runs: int) -> bool:
        return [chunk["type"] for chunk in self.chunks].count("RUN_FINISHED") >= runs


@asynccontextmanager
async def listening(person: Person, conversation: str) -> AsyncIterator[Listener]:
    query = {"id": conversation, "offset": "-1", "live": "sse"}
    async with person.http.stream("GET", "/api/chat-stream", params=query) as response:
        assert response.status_code == 200
        listener = Listener(response)
        task = asyncio.create_task(listener.listen())
        yield listener
        task.cancel()
        await asyncio.wait({task})


@pytest.mark.parametrize("kind", EVERYWHERE)
async def test_many_readers_are_one_connection_which_breaks_unseen(
    person: Person, streams: service.Service, kind: ServerName
) -> None:
    conversation = await person.begin()
    gate = streams.gate
    async with AsyncExitStack() as stack:
        listeners = [await stack.enter_async_context(listening(person, conversation)) for _ in range(5)]
        await person.send(conversation, "words=30 delay=5", id="m-1")
        await until(lambda: all(listener.heard(1) for listener in listeners))
        await until(lambda: gate.live == 1)
        await person.idle(conversation)
        gate.shut()
        gate.open()
        await person.send(conversation, "words=5", id="m-2")
        await until(lambda: all(listener.heard(2) for listener in listeners))
        assert gate.live == 1
        assert not any(listener.ended for listener in listeners)
    stored, _ = await person.transcript(conversation)
    for listener in listeners:
        assert listener.chunks == stored
    if kind == "wsgi":  # a thread that waits sees that its reader has left when it writes
        await person.send(conversation, "words=1", id="m-3")
    await until(lambda: gate.live == 0)


@pytest.mark.parametrize("kind", ASYNC)
@pytest.mark.parametrize("live", ["", "&live=sse", "&live=long-poll"])
async def test_who_leaves_before_the_first_byte_is_not_waited_for(
    person: Person, streams: service.Service, live: str
) -> None:
    begun, let_go = threading.Event(), threading.Event()

    async def held(exchange: Exchange) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            let_go.set()

    conversation = await person.begin()
    streams.gate.faults = [held]
    url = httpx.URL(person.base)
    _, writer = await asyncio.open_connection(url.host, url.port)
    path = f"/api/chat-stream?id={conversation}&offset=-1{live}"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {url.host}\r\nCookie: {person.cookie}\r\n\r\n".encode())
    await until(begun.is_set)
    writer.close()
    await until(let_go.is_set)


@pytest.mark.parametrize("kind", EVERYWHERE)
async def test_whatever_is_wrong_there_is_503_here(
    person: Person, streams: service.Service, site: LiveServer
) -> None:
    conversation = await person.begin()
    await person.send(conversation, "words=3", id="m-1")
    await person.idle(conversation)
    query = {"id": conversation, "offset": "-1"}
    ways = (query, query | {"live": "sse"}, query | {"live": "long-poll"})
    for fault in (login_page, garbage, refusal(401), refusal(403), refusal(500), refusal(429, "7")):
        streams.gate.faults = [fault] * NEVER_AGAIN
        asking = (person.http.get("/api/chat-stream", params=way) for way in ways)
        for answer in await asyncio.gather(*asking):
            assert (answer.status_code, list(answer.json())) == (503, ["error"])
            assert float(answer.headers["retry-after"]) >= 1
    streams.gate.faults = []
    assert "DS_SECRET" in site.log.read_text()
    assert streams.secret not in site.log.read_text()
    stored, _ = await person.transcript(conversation)
    assert stored[-1]["type"] == "RUN_FINISHED"


@pytest.mark.parametrize("kind", ["unmounted", "wsgi"])
def test_an_unmodified_client_at_the_other_doors(packages: None, site: LiveServer) -> None:
    """The client suites have those that `mount` opens."""
    visitor = Visitor(site.base)
    conversation = visitor.begin()
    prompt = "Say words=40 delay=5"
    (tab,) = visitor.drive("tanstack_tabs", conversation, prompts=[prompt])["tabs"]
    assert texts(tab["messages"]) == [("user", prompt), ("assistant", words(40))]
    assert tab["errors"] == []
    visitor.http.close()
