"""HTTPHandler: requests over real sockets, and every way in which a connection can fail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from durable_chat.streams.client import Producer, StreamClient, subscribe
from durable_chat.streams.client.http import HTTPHandler
from durable_chat.streams.client.transport import Patience, Transport
from durable_chat.streams.protocol.errors import BadRequest, StreamError, Unavailable
from durable_chat.streams.protocol.exchange import Request, Response
from durable_chat.streams.protocol.secrets import StreamsSecret
from durable_chat.streams.server import StreamServer
from durable_chat.streams.stores.memory import MemoryStore
from tests.streams.transports import TRANSPORTS
from tests.streams.wire import raw_server, reset, send_response


@pytest.fixture(params=TRANSPORTS)
async def connections(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    async with aclosing(TRANSPORTS[request.param]()) as connections:
        yield connections


class Door:
    """A real server behind raw sockets; ``faults`` says what becomes of the next answers."""

    def __init__(self) -> None:
        self.handle = StreamServer(MemoryStore()).handle
        self.faults: list[str | int] = []
        self.requests: list[Request] = []

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.requests.append(request)
        fault = self.faults.pop(0) if self.faults else None
        if fault == "reset before":
            return reset(writer)
        if fault == "busy":
            return await send_response(writer, Response(503, {"retry-after": "0"}))
        if fault == "login page":
            return await send_response(
                writer, Response(200, {"content-type": "text/html"}, b"<h1>Login</h1>")
            )
        if fault == "garbage":
            writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
            return await writer.drain()
        response = await self.handle(request)
        if fault == "reset after":
            await response.aclose()
            return reset(writer)
        return await send_response(writer, response, cut_after=fault if isinstance(fault, int) else None)


FAULTS = ["reset before", "reset after", "busy", "login page", "garbage"]


@pytest.mark.parametrize("fault", FAULTS)
async def test_an_append_is_taken_once_whatever_becomes_of_its_answer(connections, fault):
    door = Door()
    async with raw_server(door) as url:
        client = StreamClient(HTTPHandler(url, lambda: connections))
        await client.create("s")
        async with Producer(client, "s", id="p", epoch=0) as producer:
            door.faults = [fault, fault]
            await producer.append(["☃", {"n": 1}])
            door.faults = [fault]
            await producer.add("last")
        assert (await client.read("s")).items == ("☃", {"n": 1}, "last")


@pytest.mark.parametrize("cut", [0, 1, 20, 60, 90, 120, 160, *FAULTS])
async def test_a_live_read_that_breaks_is_taken_up_again(connections, cut):
    door = Door()
    async with raw_server(door) as url:
        client = StreamClient(HTTPHandler(url, lambda: connections))
        await client.create("s")
        seen: list[object] = []
        async with aclosing(subscribe(client, "s")) as batches:
            async for batch in batches:
                seen.extend(batch.items)
                if not seen:
                    door.faults = [cut, cut]
                    await StreamClient(door.handle).append("s", ["☃", 2])
                elif not batch.closed:
                    await StreamClient(door.handle).append("s", [3], close=True)
        assert seen == ["☃", 2, 3]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_request_that_fails_is_unavailable(connections, fault):
    door = Door()
    async with raw_server(door) as url:
        client = StreamClient(HTTPHandler(url.replace("//", "//user:secret@"), lambda: connections))
        await client.create("s")
        for operation in (client.head, client.read, client.create, client.close):
            door.faults = [fault] * 2  # a connection that broke is tried once more
            with pytest.raises(Unavailable) as failed:
                await operation("s")
            assert "secret" not in str(failed.value)


async def test_nobody_there(connections, unused_tcp_port):
    client = StreamClient(HTTPHandler(f"http://u:secret@127.0.0.1:{unused_tcp_port}", lambda: connections))
    with pytest.raises(Unavailable, match="Connect") as failed:
        await client.head("s")
    assert "secret" not in str(failed.value)


@pytest.mark.parametrize("read", [True, False])
async def test_leaving_a_live_read_hangs_up(connections, read):
    gone = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        async def body() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b": still here\n\n"
                    await asyncio.sleep(0.01)
            finally:
                gone.set()

        await send_response(writer, Response(200, {"content-type": "text/event-stream"}, body()))

    async with raw_server(answer) as url:
        handler = HTTPHandler(url, lambda: connections)
        async with await handler(Request("GET", "s", {"live": "sse", "offset": "-1"})) as response:
            if read:
                assert (await anext(aiter(response.body))).startswith(b": still here")
        await gone.wait()


class Mute:
    """A server that takes requests, sends ``said`` and then nothing; knows who comes and who leaves."""

    def __init__(self, said: bytes = b"") -> None:
        self.said = said
        self.came, self.gone = asyncio.Event(), asyncio.Event()

    async def __aenter__(self) -> str:
        self.server = await asyncio.start_server(self.visited, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/v1/stream"

    async def __aexit__(self, *error: object) -> None:
        self.server.close()

    async def visited(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self.said)
        self.came.set()
        await reader.read()
        self.gone.set()
        writer.close()


@pytest.mark.parametrize("query", [{}, {"live": "sse", "offset": "-1"}])
async def test_leaving_before_the_first_byte_hangs_up(connections, query):
    mute = Mute()
    async with mute as url:
        asking = asyncio.ensure_future(HTTPHandler(url, lambda: connections)(Request("GET", "s", query)))
        await mute.came.wait()
        asking.cancel()
        await mute.gone.wait()


async def test_a_server_that_says_nothing_is_unavailable(connections):
    patience = Patience(connect=0.05, write=0.05, read=0.1, live=0.2)
    async with Mute() as url:
        handler = HTTPHandler(url, lambda: connections, patience=patience)
        for request in (Request("HEAD", "s"), Request("POST", "s"), Request("GET", "s", {"live": "sse"})):
            with pytest.raises(Unavailable, match="Timeout"):
                await handler(request)
    async with Mute(b"HTTP/1.1 200 -\r\ntransfer-encoding: chunked\r\n\r\n1\r\n[\r\n") as url:
        handler = HTTPHandler(url, lambda: connections, patience=patience)
        with pytest.raises(Unavailable, match="Timeout"):
            await handler(Request("GET", "s"))
        async with await handler(Request("GET", "s", {"live": "sse"})) as response:
            with pytest.raises(Unavailable, match="Timeout"):
                await response.read()


async def test_what_goes_over_the_wire(connections):
    door = Door()
    async with raw_server(door) as url:
        handler = HTTPHandler(
            url + "/",
            lambda: connections,
            token=StreamsSecret("streams-secret"),
            read_token=StreamsSecret("read-secret"),
            headers={"X-Tenant": "acme"},
        )
        await StreamClient(handler).create("service/a b?c#d%2F☃")
        request = Request(
            "GET", "s", {"offset": "a b&c", "live": "sse", "cursor": "1"}, {"accept": "text/event-stream"}
        )
        await (await handler(request)).aclose()
    created, read = door.requests
    assert (created.method, created.path) == ("PUT", "service/a b?c#d%2F☃")
    assert created.headers["authorization"] == "Bearer streams-secret"
    assert read.headers["authorization"] == "Bearer read-secret"
    assert created.headers["x-tenant"] == "acme"
    assert list(read.query.items()) == [("cursor", "1"), ("live", "sse"), ("offset", "a b&c")]
    assert read.headers["accept"] == "text/event-stream"
    assert read.headers["accept-encoding"] == "identity"
    assert "secret" not in repr(handler)


async def test_the_headers_of_one_hop_stay_there(connections):
    requests = []

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        requests.append(request)
        headers = {
            "date": "today",
            "keep-alive": "timeout=5",
            "access-control-allow-origin": "*",
            "etag": '"1"',
        }
        await send_response(writer, Response(200, headers, b"[]"))

    hop = {"host": "evil", "connection": "x-a", "transfer-encoding": "chunked", "content-length": "7"}
    async with raw_server(answer) as url:
        handler = HTTPHandler(url, lambda: connections)
        response = await handler(Request("POST", "s", headers={**hop, "x-a": "ä"}, body=b"[1]"))
    (request,) = requests
    assert (request.body, request.headers["host"]) == (b"[1]", url.split("/")[2])
    assert "transfer-encoding" not in request.headers
    assert response.headers == {"etag": '"1"'}


@pytest.mark.parametrize("value", ["a\r\nx-b: c", "a\nb", "a\0", "☃"])
async def test_a_header_is_one_line(connections, value):
    handler = HTTPHandler("http://127.0.0.1:1", lambda: connections)
    for headers in ({"x-a": value}, {value: "x-a"}):
        with pytest.raises(BadRequest):
            await handler(Request("GET", "s", headers=headers))
    with pytest.raises(ValueError, match="token or header") as failed:
        HTTPHandler("http://127.0.0.1:1", lambda: connections, token=StreamsSecret(f"sentinel{value}"))
    assert "sentinel" not in str(failed.value)


async def test_a_user_in_the_base_url_is_told(connections):
    door = Door()
    async with raw_server(door) as url:
        handler = HTTPHandler(url.replace("//", "//ada:p%40ss@"), lambda: connections)
        await StreamClient(handler).create("s")
    assert door.requests[0].headers["authorization"] == "Basic YWRhOnBAc3M="
    assert "ada" not in repr(handler)


async def test_a_redirect_is_not_followed(connections):
    requests = []

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        requests.append(request)
        await send_response(writer, Response(307, {"location": "/v1/stream/elsewhere"}))

    async with raw_server(answer) as url:
        with pytest.raises(StreamError, match="307"):
            await StreamClient(HTTPHandler(url, lambda: connections)).append("s", [1])
    assert len(requests) == 1


@pytest.mark.parametrize("base", ["/v1/stream", "/v1/stream/", "/a%20b", ""])
async def test_a_stream_to_fork_is_named_by_its_whole_path(connections, base):
    requests = []

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        requests.append(request)
        await send_response(writer, Response(201))

    async with raw_server(answer) as url:
        handler = HTTPHandler(url.removesuffix("/v1/stream") + base, lambda: connections)
        await handler(Request("PUT", "fork", headers={"stream-forked-from": "ä/b c"}))
        with pytest.raises(BadRequest):
            await handler(Request("PUT", "fork", headers={"stream-forked-from": "a/../b"}))
    (request,) = requests
    assert request.headers["stream-forked-from"] == base.rstrip("/") + "/%C3%A4/b%20c"


@pytest.mark.parametrize("path", ["", "..", "a/../b", "a//b", "/a", "a/", "."])
async def test_a_path_stays_below_the_base_url(connections, path):
    with pytest.raises(BadRequest):
        await HTTPHandler("http://127.0.0.1:1/v1/stream", lambda: connections)(Request("GET", path))


@pytest.mark.parametrize(
    "url", ["", "streams.example", "ftp://streams.example", "https://", "http://h/?a=1", "http://h/#a"]
)
def test_a_base_url_is_checked_at_once(connections, url):
    with pytest.raises(ValueError, match="base URL"):
        HTTPHandler(url, lambda: connections)
