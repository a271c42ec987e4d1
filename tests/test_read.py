"""GET api/chat-stream, reconnect, and the view of one run: through Django's door and through the bare one."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from django.test import AsyncClient

from durable_chat.streams.client.sse import Decoder
from project.asgi import application
from tests.conftest import Chatter, the_run, words
from tests.service import Service

KEPT = {
    "cache-control",
    "content-length",
    "content-type",
    "etag",
    "stream-closed",
    "stream-cursor",
    "stream-next-offset",
    "stream-up-to-date",
    "x-accel-buffering",
    "x-content-type-options",
}


class Answer:
    """One HTTP answer, its body as it comes."""

    def __init__(self, status: int, headers: dict[str, str], pieces: AsyncIterator[bytes]) -> None:
        self.status, self.headers, self._pieces = status, headers, pieces

    async def body(self) -> bytes:
        return b"".join([piece async for piece in self._pieces])

    async def json(self) -> Any:
        return orjson.loads(await self.body())

    async def events(self) -> AsyncIterator[tuple[str, Any]]:
        decoder = Decoder()
        async for piece in self._pieces:
            for event in decoder.feed(piece):
                yield event.name, orjson.loads(event.data)


@asynccontextmanager
async def bare(
    client: AsyncClient, path: str, *, application: Any = application, **headers: str
) -> AsyncIterator[Answer]:
    """A GET through `mount`, as a server would bring it."""
    cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())
    path, _, query = path.partition("?")
    sent = {"host": "testserver", "cookie": cookies, **headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        "client": ("127.0.0.1", 1),
        "server": ("testserver", 80),
    }
    messages: asyncio.Queue[Any] = asyncio.Queue()
    left = asyncio.Event()
    first = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if first:
            return first.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    task = asyncio.create_task(application(scope, receive, messages.put))
    start = await messages.get()

    async def pieces() -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await messages.get()
            more = message.get("more_body", False)
            yield message["body"]

    told = {name.decode(): value.decode() for name, value in start["headers"]}
    try:
        yield Answer(start["status"], told, pieces())
    finally:
        left.set()
        await asyncio.wait_for(task, 10)


@asynccontextmanager
async def django(client: AsyncClient, path: str, **headers: str) -> AsyncIterator[Answer]:
    """A GET through Django's handler, middleware and the class-based view."""
    response = await client.get(path, headers=headers)
    told = {name.lower(): value for name, value in response.headers.items()}

    async def pieces() -> AsyncIterator[bytes]:
        if not response.streaming:
            yield response.content
            return
        async for piece in response.streaming_content:
            yield piece

    body = pieces()
    try:
        yield Answer(response.status_code, told, body)
    finally:
        await body.aclose()  # type: ignore[attr-defined]
        if response.streaming and hasattr(response._iterator, "aclose"):
            await response._iterator.aclose()


@pytest.fixture(params=[bare, django], ids=["mounted", "view"])
def get(request: Any) -> Any:
    return request.param


async def test_catch_up(chatter: Chatter, get: Any) -> None:
    await chatter.send("words=3")
    await chatter.idle()
    async with get(chatter.http, f"/api/chat-stream?id={chatter.id}&offset=-1") as answer:
        assert answer.status == 200
        assert await answer.json() == await chatter.chunks()
        assert answer.headers["stream-up-to-date"] == "true"
        assert answer.headers["stream-next-offset"] == (await chatter.hydrate())["offset"]
        assert answer.headers["cache-control"] == "no-store"


async def test_only_listed_headers_come_down(chatter: Chatter) -> None:
    async with bare(chatter.http, f"/api/chat-stream?id={chatter.id}&offset=-1") as answer:
        assert set(answer.headers) <= KEPT


@pytest.mark.parametrize("where", ["embedded", "remote"])
async def test_a_conditional_read(
    site: None, settings: Any, shared_service: Service, get: Any, where: str
) -> None:
    streams = dict(shared_service.env) if where == "remote" else {}
    settings.DURABLE_CHAT = {**settings.DURABLE_CHAT, "STREAMS": streams}
    chatter = Chatter()
    await chatter.begin()
    await chatter.send("words=3")
    await chatter.idle()
    path = f"/api/chat-stream?id={chatter.id}&offset=-1"
    async with get(chatter.http, path) as answer:
        tag = answer.headers["etag"]
        assert re.fullmatch(r'"[0-9a-f]{32}"', tag)  # the reference server's own tells its paths
        await answer.body()
    for known in (tag, f'"x", W/{tag}', "*"):
        async with get(chatter.http, path, **{"if-none-match": known}) as answer:
            assert (answer.status, await answer.body()) == (304, b"")
    async with get(chatter.http, path, **{"if-none-match": tag.strip('"')}) as answer:
        assert answer.status == 200


async def test_live_from_the_hydration_offset_misses_and_doubles_nothing(chatter: Chatter, get: Any) -> None:
    await chatter.send("words=2")
    await chatter.idle()
    offset = (await chatter.hydrate())["offset"]
    seen: list[Any] = []
    async with get(chatter.http, f"/api/chat-stream?id={chatter.id}&offset={offset}&live=sse") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        events = answer.events()
        name, control = await anext(events)
        assert (name, control["streamNextOffset"], control["upToDate"]) == ("control", offset, True)
        await chatter.send("words=5 delay=5")
        async for name, data in events:
            seen += data if name == "data" else []
            if seen and seen[-1]["type"] == "RUN_FINISHED":
                break
        await events.aclose()  # type: ignore[attr-defined]
    await chatter.idle()
    assert [*(await chatter.chunks())[-len(seen) :]] == seen
    text = "".join(
        c["delta"] for c in seen if c["type"] == "TEXT_MESSAGE_CONTENT" and c.get("model") != "client"
    )
    assert text == words(5)


async def test_bad_offsets_and_modes(chatter: Chatter, get: Any) -> None:
    for query in ("offset=%20", "offset=1,2", "offset=-1&live=carrier-pigeon", "live=sse", "live=long-poll"):
        async with get(chatter.http, f"/api/chat-stream?id={chatter.id}&{query}") as answer:
            assert answer.status == 400, query
            assert list(await answer.json()) == ["error"]
            assert answer.headers["content-type"] == "application/json"


async def test_missing_and_malformed_ids(chatter: Chatter, get: Any) -> None:
    for query in ("", "?id=", "?id=a%20b", "?offset=-1"):
        async with get(chatter.http, f"/api/chat-stream{query}") as answer:
            assert answer.status == 400
            assert list(await answer.json()) == ["error"]


async def test_posting_to_the_reader(chatter: Chatter) -> None:
    response = await chatter.post(f"/api/chat-stream?id={chatter.id}", {})
    assert response.status_code == 405
    assert "api/chat?id" in response.json()["error"]


async def test_reconnect(chatter: Chatter) -> None:
    path = f"/api/chat/{chatter.id}/stream"
    assert (await chatter.http.get(path)).status_code == 204
    await chatter.send("words=1000 delay=10")
    response = await chatter.http.get(path)
    assert response.status_code == 200
    run = await the_run(chatter.id)
    assert response["Location"] == f"/api/chat-stream?id={chatter.id}&run={run.pk}"
    assert response.json() == {"streamUrl": response["Location"]}
    await chatter.post(f"/api/chat/{chatter.id}/stop", {})
    await chatter.idle()
    assert (await chatter.http.get(path)).status_code == 204


# --- the view of one run -----------------------------------------------------------------------------------


async def test_an_ended_run_is_a_closed_stream_of_ui_message_chunks(chatter: Chatter, get: Any) -> None:
    await chatter.send("words=1")
    await chatter.idle()
    location = (await chatter.submit("words=3"))["Location"]
    await chatter.idle()
    await chatter.send("words=1")
    await chatter.idle()
    async with get(chatter.http, f"{location}&offset=-1") as answer:
        items = await answer.json()
        assert answer.headers["stream-closed"] == "true"
    assert items[0]["type"] == "start"
    assert items[-1]["type"] == "finish"
    assert "".join(item.get("delta", "") for item in items) == words(3)


async def test_a_live_run_read_over_many_connections(chatter: Chatter, get: Any) -> None:
    """Each connection is cut after one event and resumed by offset: the items are as in one go."""
    location = (await chatter.submit("call a tool, show reasoning"))["Location"]
    offset, cursor, items, closed = "-1", "", [], False
    while not closed:
        path = f"{location}&offset={offset}&live=sse&cursor={cursor}"
        async with get(chatter.http, path) as answer:
            events = answer.events()
            async for name, data in events:
                if name == "data":
                    items += data
                    continue
                offset, cursor = data["streamNextOffset"], data.get("streamCursor", "")
                closed = data.get("streamClosed", False)
                if items or closed:
                    break
            await events.aclose()  # type: ignore[attr-defined]
    await chatter.idle()
    async with get(chatter.http, f"{location}&offset=-1") as answer:
        assert await answer.json() == items
    assert items[-1]["type"] == "finish"


async def test_a_run_by_long_poll(chatter: Chatter, get: Any) -> None:
    location = (await chatter.submit("words=20 delay=10"))["Location"]
    offset, items, closed = "-1", [], False
    while not closed:
        async with get(chatter.http, f"{location}&offset={offset}&live=long-poll") as answer:
            assert answer.status == 200
            items += await answer.json()
            offset = answer.headers["stream-next-offset"]
            closed = answer.headers.get("stream-closed") == "true"
    assert "".join(item.get("delta", "") for item in items) == words(20)


async def test_whoever_asks_beyond_the_end_of_a_run_is_told_the_end(chatter: Chatter, get: Any) -> None:
    location = (await chatter.submit("words=3"))["Location"]
    await chatter.idle()
    for offset in ("now", "9" * 16):
        async with get(chatter.http, f"{location}&offset={offset}") as answer:
            assert (await answer.json(), answer.headers["stream-closed"]) == ([], "true")
            end = answer.headers["stream-next-offset"]
        async with get(chatter.http, f"{location}&offset={offset}&live=sse") as answer:
            ((name, control),) = [event async for event in answer.events()]
        assert (name, control["streamNextOffset"], control["streamClosed"]) == ("control", end, True)


async def test_a_run_from_now_on(chatter: Chatter, get: Any) -> None:
    location = (await chatter.submit("words=1000 delay=10"))["Location"]
    async with get(chatter.http, f"{location}&offset=now&live=sse") as answer:
        events = answer.events()
        name, before = await anext(events)
        assert (name, before.get("streamClosed", False)) == ("control", False)
        await chatter.post(f"/api/chat/{chatter.id}/stop", {})
        items = [item async for name, data in events if name == "data" for item in data]
    await chatter.idle()
    async with get(chatter.http, f"{location}&offset={before['streamNextOffset']}") as answer:
        assert await answer.json() == items
    assert items[-1]["type"] == "abort"


async def test_a_head_of_a_live_read_ends(chatter: Chatter) -> None:
    response = await chatter.http.head(f"/api/chat-stream?id={chatter.id}&offset=-1&live=sse")
    assert response.status_code == 200
    assert not response.streaming


async def test_runs_that_are_not_there(chatter: Chatter, get: Any) -> None:
    async with get(chatter.http, f"/api/chat-stream?id={chatter.id}&offset=-1&run=nope") as answer:
        assert answer.status == 404
        assert list(await answer.json()) == ["error"]


async def test_bad_offsets_of_a_run(chatter: Chatter, get: Any) -> None:
    location = (await chatter.submit("words=1"))["Location"]
    for query in ("offset=12", "offset=x", "offset=-1&live=x"):
        async with get(chatter.http, f"{location}&{query}") as answer:
            assert answer.status == 400
