"""The ASGI door: who is let in, how much may be brought along, and what happens when somebody leaves."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_chat.streams.embedded.asgi import StreamsApplication
from durable_chat.streams.protocol.errors import Forbidden, Unauthorized
from durable_chat.streams.protocol.exchange import Request, Response
from durable_chat.streams.server import Access, StreamServer, authorize
from durable_chat.streams.stores.memory import MemoryStore

OPEN = Access(anonymous=True)
GUARDED = Access(write_token="w-secret", read_token="r-secret")
SOON = 30.0


class Visit:
    """One request to an ASGI application, and what it sends."""

    def __init__(self, method: str, path: str, *pieces: bytes, query: str = "", root_path: str = "",
                 headers: Mapping[str, str] | None = None) -> None:  # fmt: skip
        self.scope: MutableMapping[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "root_path": root_path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
            "scheme": "https",
        }
        self.pieces = list(pieces) or [b""]
        self.received = 0
        self.sent: list[MutableMapping[str, Any]] = []
        self.gone = asyncio.Event()
        self.something_sent = asyncio.Event()

    async def receive(self) -> MutableMapping[str, Any]:
        if self.received < len(self.pieces):
            piece = self.pieces[self.received]
            self.received += 1
            more = self.received < len(self.pieces)
            return {"type": "http.request", "body": piece, "more_body": more}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body" and message["body"]:
            self.something_sent.set()

    async def to(self, application: StreamsApplication) -> "Visit":
        await application(self.scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])


def door(access: Access = OPEN, **options: Any) -> StreamsApplication:
    server = StreamServer(MemoryStore(), **options)
    return StreamsApplication(server.handle, root="/v1/stream/", access=access, max_body=100)


class TestAccess:
    @pytest.mark.parametrize(
        ("access", "method", "header", "refusal"),
        [
            (GUARDED, "PUT", "Bearer w-secret", None),
            (GUARDED, "GET", "bearer  w-secret ", None),
            (GUARDED, "GET", "Bearer r-secret", None),
            (GUARDED, "HEAD", "Bearer r-secret", None),
            (GUARDED, "POST", "Bearer r-secret", Forbidden),
            (GUARDED, "DELETE", "Bearer r-secret", Forbidden),
            (GUARDED, "GET", None, Unauthorized),
            (GUARDED, "GET", "", Unauthorized),
            (GUARDED, "GET", "Bearer", Unauthorized),
            (GUARDED, "GET", "Bearer ", Unauthorized),
            (GUARDED, "GET", "Bearer wrong", Unauthorized),
            (GUARDED, "GET", "Bearer w-secre", Unauthorized),
            (GUARDED, "GET", "Bearer ä", Unauthorized),
            (GUARDED, "GET", "Basic w-secret", Unauthorized),
            (GUARDED, "GET", "w-secret", Unauthorized),
            (GUARDED, "OPTIONS", None, None),
            (Access(), "GET", None, Unauthorized),
            (Access(), "GET", "Bearer ", Unauthorized),
            (Access(write_token="w"), "GET", "Bearer ", Unauthorized),
            (Access(read_token="r"), "PUT", "Bearer r", Forbidden),
            (Access(write_token="ä"), "PUT", "Bearer ä", None),
            (OPEN, "DELETE", None, None),
        ],
    )
    def test_decision(
        self, access: Access, method: str, header: str | None, refusal: type[Exception] | None
    ) -> None:
        if refusal is None:
            authorize(access, method, header)
        else:
            with pytest.raises(refusal):
                authorize(access, method, header)

    def test_tokens_are_not_shown(self) -> None:
        assert "secret" not in repr(GUARDED)

    async def test_a_stranger_learns_nothing_and_reads_nothing_in(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        visit = await Visit("PUT", "/v1/stream/a", headers={"authorization": "Bearer wrong"}).to(
            door(GUARDED)
        )
        assert visit.status == 401
        assert visit.headers["www-authenticate"] == "Bearer"
        assert visit.received == 0
        assert set(orjson.loads(visit.body)) == {"error", "code"}
        assert "wrong" not in str(visit.sent) + caplog.text
        assert "secret" not in str(visit.sent) + caplog.text

    async def test_a_preflight_needs_no_token(self) -> None:
        assert (await Visit("OPTIONS", "/v1/stream/a").to(door(GUARDED))).status == 204


class TestPaths:
    async def test_location_is_the_whole_url(self) -> None:
        visit = await Visit("PUT", "/v1/stream/a b/c", headers={"host": "example.org:8443"}).to(door())
        assert visit.headers["location"] == "https://example.org:8443/v1/stream/a%20b/c"

    async def test_below_a_mount(self) -> None:
        application = door()
        visit = Visit("PUT", "/site/v1/stream/a", root_path="/site", headers={"host": "h"})
        assert (await visit.to(application)).headers["location"] == "https://h/site/v1/stream/a"
        assert (await Visit("HEAD", "/v1/stream/a").to(application)).status == 200

    async def test_a_trailing_slash_changes_nothing(self) -> None:
        application = door()
        await Visit("PUT", "/v1/stream/a/").to(application)
        assert (await Visit("GET", "/v1/stream/a").to(application)).status == 200

    @pytest.mark.parametrize(
        ("source", "root_path", "status"),
        [
            ("/v1/stream/a%20b", "", 201),
            ("/v1/stream/a%20b/", "", 201),
            ("/site/v1/stream/a%20b", "/site", 201),
            ("/v2/stream/a%20b", "", 404),
            ("a%20b", "", 404),
            ("", "", 404),
        ],
    )
    async def test_a_stream_to_fork_is_named_by_its_path(
        self, source: str, root_path: str, status: int
    ) -> None:
        application = door()
        await Visit("PUT", "/v1/stream/a b").to(application)
        fork = Visit(
            "PUT", f"{root_path}/v1/stream/c", root_path=root_path, headers={"stream-forked-from": source}
        )
        assert (await fork.to(application)).status == status

    @pytest.mark.parametrize("path", ["/", "/v1/stream", "/v1/stream/", "/v2/stream/a", "/v1/streams/a"])
    async def test_there_is_nothing_elsewhere(self, path: str) -> None:
        visit = await Visit("PUT", path).to(door())
        assert visit.status == 404
        assert orjson.loads(visit.body)["error"]

    async def test_other_protocols_are_not_spoken(self) -> None:
        visit = Visit("GET", "/v1/stream/a")
        visit.scope["type"] = "websocket"
        with pytest.raises(ValueError, match="websocket"):
            await visit.to(door())


@given(st.text("offset=&;+%2B\u00e9", max_size=12))
async def test_parameters_are_those_of_the_url(query: str) -> None:
    asked: list[Request] = []

    async def handle(request: Request) -> Response:
        asked.append(request)
        return Response(204)

    await Visit("GET", "/v1/stream/a", query=query).to(
        StreamsApplication(handle, root="/v1/stream/", access=OPEN)
    )
    assert dict(asked[0].query) == dict(parse_qsl(query.encode().decode("latin-1"), keep_blank_values=True))


class TestBodies:
    async def test_come_in_pieces(self) -> None:
        application = door()
        await Visit("PUT", "/v1/stream/a", b"on", b"", b"e").to(application)
        assert (await Visit("GET", "/v1/stream/a").to(application)).body == b"one"

    async def test_that_are_announced_as_too_large_are_not_read(self) -> None:
        for length in ("101", "9" * 5000):
            headers = {"content-length": length}
            visit = await Visit("PUT", "/v1/stream/a", b"x" * 101, headers=headers).to(door())
            assert (visit.status, visit.received) == (413, 0)

    async def test_that_turn_out_too_large_are_not_read_to_their_end(self) -> None:
        visit = await Visit("PUT", "/v1/stream/a", *[b"x" * 60] * 10).to(door())
        assert (visit.status, visit.received) == (413, 2)

    async def test_that_break_off_do_nothing(self) -> None:
        application = door()
        visit = Visit("PUT", "/v1/stream/a", b"half")

        async def receive() -> MutableMapping[str, Any]:
            message = await Visit.receive(visit)
            return {**message, "more_body": True}

        visit.gone.set()
        await application(visit.scope, receive, visit.send)
        assert visit.sent == []
        assert (await Visit("GET", "/v1/stream/a").to(application)).status == 404

    async def test_heads_have_none(self) -> None:
        application = door()
        await Visit("PUT", "/v1/stream/a", b"abc").to(application)
        for path in ("/v1/stream/a", "/v1/stream/b"):
            assert (await Visit("HEAD", path).to(application)).body == b""


async def test_every_answer_is_safe_for_browsers() -> None:
    application = door(long_poll_seconds=0.01)
    text = {"content-type": "text/plain"}
    for visit in (
        Visit("PUT", "/v1/stream/a", b"abc", headers=text),
        Visit("POST", "/v1/stream/a", b"d", headers=text),
        Visit("HEAD", "/v1/stream/a"),
        Visit("GET", "/v1/stream/a"),
        Visit("GET", "/v1/stream/a", query="offset=now&live=long-poll"),
        Visit("GET", "/v1/stream/a", query="offset=bad"),
        Visit("PATCH", "/v1/stream/a"),
        Visit("OPTIONS", "/v1/stream/a"),
        Visit("DELETE", "/v1/stream/a"),
        Visit("GET", "/v1/stream/a"),
        Visit("GET", "/elsewhere"),
    ):
        headers = (await visit.to(application)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "cross-origin"
        assert headers["access-control-allow-origin"] == "*"
        assert "stream-next-offset" in headers["access-control-expose-headers"].lower()


class Endless:
    """A body that waits for ever and tells when it has been let go of."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        self.closed.set()


async def until_it_waits(store: MemoryStore) -> None:
    for _ in range(100):
        if not store._waiters:
            await asyncio.sleep(0)
    assert store._waiters


class TestLeaving:
    async def test_closes_a_live_body_at_once(self) -> None:
        body = Endless()

        async def handle(_: Request) -> Response:
            return Response(200, {}, body)

        visit = Visit("GET", "/v1/stream/a", query="offset=-1&live=sse")
        visiting = asyncio.create_task(visit.to(StreamsApplication(handle, root="/v1/stream/", access=OPEN)))
        await asyncio.wait_for(visit.something_sent.wait(), SOON)
        assert not body.closed.is_set()
        visit.gone.set()
        await asyncio.wait_for(visiting, SOON)
        assert body.closed.is_set()

    @pytest.mark.parametrize("live", ["sse", "long-poll"])
    async def test_ends_the_wait(self, live: str) -> None:
        store = MemoryStore()
        application = StreamsApplication(StreamServer(store).handle, root="/v1/stream/", access=OPEN)
        await Visit("PUT", "/v1/stream/a").to(application)
        visit = Visit("GET", "/v1/stream/a", query=f"offset=-1&live={live}")
        visiting = asyncio.create_task(visit.to(application))
        await until_it_waits(store)
        visit.gone.set()
        await asyncio.wait_for(visiting, SOON)
        assert not store._waiters
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_the_servers_own_cancellation_ends_it_too(self) -> None:
        store = MemoryStore()
        application = StreamsApplication(StreamServer(store).handle, root="/v1/stream/", access=OPEN)
        await Visit("PUT", "/v1/stream/a").to(application)
        visiting = asyncio.create_task(
            Visit("GET", "/v1/stream/a", query="offset=-1&live=sse").to(application)
        )
        await until_it_waits(store)
        visiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await visiting
        assert not store._waiters
        assert asyncio.all_tasks() == {asyncio.current_task()}


class TestFailures:
    @pytest.mark.parametrize("query", ["", "offset=-1&live=sse"])
    async def test_what_nobody_foresaw_is_a_sentence_and_a_log_line(
        self, caplog: pytest.LogCaptureFixture, query: str
    ) -> None:
        async def handle(_: Request) -> Response:
            raise RuntimeError("private detail")

        application = StreamsApplication(handle, root="/v1/stream/", access=OPEN)
        visit = await Visit("GET", "/v1/stream/a", query=query).to(application)
        assert visit.status == 500
        assert visit.headers["content-type"] == "application/json"
        assert "private" not in str(visit.sent)
        assert "GET of stream a" in caplog.text
