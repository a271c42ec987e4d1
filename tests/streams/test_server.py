"""Every door to a server, over every store, under the same contract."""

import socket
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import uvicorn

from durable_chat.streams.embedded.asgi import StreamsApplication
from durable_chat.streams.embedded.postgres import PostgresStore
from durable_chat.streams.protocol.exchange import Handler, Request, Response
from durable_chat.streams.server import Access, StreamServer
from durable_chat.streams.stores.memory import MemoryStore
from durable_chat.streams.stores.sqlite import SQLiteStore
from tests.streams.door import OPTIONS, Door, control
from tests.streams.fork_server_contract import ForkingServer
from tests.streams.postgres import Schema
from tests.streams.server_contract import ServerContract

ROOT = "/v1/stream/"


class _Over:
    """The rest of an HTTP response, as the body of ours."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.response.aiter_raw()

    async def aclose(self) -> None:
        await self.response.aclose()


def over_http(client: httpx.AsyncClient, base: str) -> Handler:
    async def handler(request: Request) -> Response:
        response = await client.send(
            client.build_request(
                request.method,
                f"{base}{ROOT}{quote(request.path).replace('.', '%2E')}",  # or httpx resolves dot segments
                params=dict(request.query),
                headers=named(request.headers),
                content=request.body,
            ),
            stream=True,
        )
        return Response(response.status_code, dict(response.headers), _Over(response))

    return handler


def named(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers, with the stream to fork as the path of its URL."""
    source = headers.get("stream-forked-from")
    return {**headers, **({} if source is None else {"stream-forked-from": ROOT + quote(source)})}


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=30.0, verify=False, trust_env=False)


@contextmanager
def serving(store: MemoryStore | SQLiteStore) -> Iterator[str]:
    """A real HTTP server in a thread and a loop of its own; yields its origin."""
    server = StreamServer(store, **OPTIONS)
    access, limit = Access(anonymous=True), server.options.max_body
    door = StreamsApplication(server.handle, root=ROOT, access=access, max_body=limit)
    # Told its protocol, or asyncio leaves Nagle's algorithm on and every answer takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # from now on a client waits, should it be there before the server
    config = uvicorn.Config(door, lifespan="off", ws="none", log_level="warning", timeout_graceful_shutdown=5)
    uvicorn_server = uvicorn.Server(config)
    thread = threading.Thread(target=uvicorn_server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        uvicorn_server.should_exit = True
        thread.join()
        listener.close()
        store.close()


async def test_a_live_window_ends_with_another_cursor() -> None:
    server = StreamServer(MemoryStore(), sse_seconds=0)  # which is lengthened to what clients bear
    ask = Door(server.handle, "a")
    await ask("PUT", b"abc", {"content-type": "text/plain"})
    controls = [control(event) async for event in ask.events(offset="now", cursor="99999999")]
    cursors = [int(fields["streamCursor"]) for fields in controls]
    assert len(cursors) == 2
    assert 99999999 < cursors[0] < cursors[1]
    assert all(fields["upToDate"] for fields in controls)


class TestHandleOverMemory(ServerContract, ForkingServer):
    @pytest.fixture
    async def handler(self) -> Handler:
        return StreamServer(MemoryStore(), **OPTIONS).handle


class TestHandleOverSQLite(ServerContract, ForkingServer):
    @pytest.fixture
    async def handler(self, tmp_path: Path) -> AsyncIterator[Handler]:
        store = SQLiteStore(tmp_path / "streams.sqlite3")
        yield StreamServer(store, **OPTIONS).handle
        await store.aclose()


class TestHandleOverPostgres(ServerContract, ForkingServer):
    @pytest.fixture
    async def handler(self, schema: Schema) -> AsyncIterator[Handler]:
        store = PostgresStore(schema.parameters)
        yield StreamServer(store, **OPTIONS).handle
        await store.aclose()


@pytest.fixture(scope="module")
def memory_origin() -> Iterator[str]:
    with serving(MemoryStore()) as origin:
        yield origin


@pytest.fixture(scope="module")
def sqlite_origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(SQLiteStore(tmp_path_factory.mktemp("streams") / "streams.sqlite3")) as origin:
        yield origin


class TestHTTPOverMemory(ServerContract, ForkingServer):
    @pytest.fixture
    async def handler(self, memory_origin: str) -> AsyncIterator[Handler]:
        async with client() as http:
            yield over_http(http, memory_origin)


class TestHTTPOverSQLite(ServerContract, ForkingServer):
    @pytest.fixture
    async def handler(self, sqlite_origin: str) -> AsyncIterator[Handler]:
        async with client() as http:
            yield over_http(http, sqlite_origin)
