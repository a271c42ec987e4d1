"""The relay: a service's streams through one hub, whatever becomes of the service's connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import pairwise
from unittest.mock import patch

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_chat.streams import live
from durable_chat.streams.client import StreamClient, backoff
from durable_chat.streams.client.frames import frames
from durable_chat.streams.client.relay import Relay, Upstream
from durable_chat.streams.client.sse import Decoder
from durable_chat.streams.hub import Frame
from durable_chat.streams.protocol import sse
from durable_chat.streams.protocol.errors import Unavailable
from durable_chat.streams.protocol.exchange import Handler, Request, Response
from durable_chat.streams.server import StreamServer
from durable_chat.streams.stores.memory import MemoryStore
from tests.streams.door import OPTIONS
from tests.streams.faulty import CutBody, Fault, Faulty, busy, cut_after, fine, lost_request
from tests.streams.hub_contract import SOON, nothing_is_left
from tests.streams.server_contract import ServerContract

JSON = {"content-type": "application/json"}
SSE = {"content-type": "text/event-stream"}
PAGE = {"content-type": "text/html"}


class TestAsADoor(ServerContract):
    """Readers cannot tell it from the server behind it."""

    # The browser's headers are the door's to set; and only a server knows its streams by more than offsets.
    test_every_answer_is_safe_to_serve = test_a_deleted_stream_ends = None  # type: ignore[assignment]

    @pytest.fixture
    async def handler(self) -> Handler:
        server = StreamServer(MemoryStore(), **OPTIONS)
        return Relay(Upstream(server.handle), long_poll_seconds=OPTIONS["long_poll_seconds"])


@pytest.fixture
def line() -> Faulty:
    return Faulty(StreamServer(MemoryStore()).handle)


@pytest.fixture
async def writer(line: Faulty) -> AsyncIterator[StreamClient]:
    """Somebody else, whose line is fine."""
    writer = StreamClient(line.handler)
    await writer.create("s")
    yield writer
    assert nothing_is_left()


@pytest.fixture
def relay(line: Faulty) -> Relay:
    return Relay(Upstream(line))


def ask(offset: str = "now", mode: str | None = "sse", **headers: str) -> Request:
    return Request("GET", "s", {"offset": offset} | ({"live": mode} if mode else {}), headers)


def answering(status: int, headers: dict[str, str], body: bytes = b"") -> Fault:
    async def fault(handler: Handler, request: Request) -> Response:
        return Response(status, headers, body)

    return fault


class Browser:
    """One live answer, read event by event. It fails if the answer ends before it is left."""

    def __init__(self, relay: Relay, offset: str = "now") -> None:
        self.relay, self.offset = relay, offset
        self.seen: list[object] = []
        self.keep_alives = 0

    async def __aenter__(self) -> "Browser":
        self.response = await self.relay(ask(self.offset))
        assert self.response.status == 200
        assert not isinstance(self.response.body, bytes)
        self._pieces = aiter(self.response.body)
        self._decoder = Decoder()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.response.aclose()

    async def until(self, count: int) -> list[object]:
        while len(self.seen) < count:
            await self.piece()
        return self.seen

    async def to_the_end(self) -> None:
        with suppress(StopAsyncIteration):
            while True:
                await self.piece()

    async def piece(self) -> bytes:
        async with asyncio.timeout(SOON):
            piece = await anext(self._pieces)
        self.keep_alives += piece == sse.KEEP_ALIVE
        for event in self._decoder.feed(piece):
            if event.name == "data":
                self.seen += orjson.loads(event.data)
        return piece


# --- one connection for all --------------------------------------------------------------------------------


def live_reads(line: Faulty) -> int:
    return sum("live" in request.query for request in line.requests)


async def test_many_readers_are_one_connection(line: Faulty, writer: StreamClient, relay: Relay) -> None:
    opened: list[CutBody] = []
    line.plan.extend([fine] * 5 + [cut_after(10**9, seen=opened)])
    async with Browser(relay) as a, Browser(relay) as b, Browser(relay) as c, Browser(relay) as d:
        async with Browser(relay) as leaving:
            browsers = [a, b, c, d, leaving]
            for browser in browsers:
                await browser.piece()
            for number in range(10):
                steps = [asyncio.create_task(browser.until(number + 1)) for browser in browsers]
                await writer.append("s", [number])
                await asyncio.gather(*steps)
            poll = asyncio.create_task(relay(ask("now", "long-poll")))
            await line.reached(7)
            await writer.append("s", [10])
            assert (await poll).body == b"[10]"
        assert [body.closed for body in opened] == [False]
        assert live_reads(line) == 1
    assert [body.closed for body in opened] == [True]


async def test_a_reader_that_leaves_before_the_first_byte_holds_nothing(
    line: Faulty, writer: StreamClient, relay: Relay
) -> None:
    line.open.clear()
    asking = asyncio.create_task(relay(ask()))
    await line.reached(1)
    asking.cancel()
    await asyncio.wait({asking})
    assert line.in_flight == 0
    line.open.set()
    await (await relay(ask())).aclose()
    assert live_reads(line) == 0


# --- breaks ------------------------------------------------------------------------------------------------


async def refused(handler: Handler, request: Request) -> Response:
    return Response(429, {"retry-after": "0"})


BREAKS: dict[str, Fault] = {
    "lost": lost_request,
    "503": busy,
    "429": refused,
    "502 page": answering(502, PAGE, b"<h1>Bad gateway</h1>"),
    "200 page": answering(200, PAGE, b"<h1>Log in</h1>"),
    "200 page, typed": answering(200, SSE, b"<h1>Log in</h1>"),
    "JSON error": answering(200, JSON, b'{"error":"x"}'),
    "not a list": answering(
        200, SSE, b'event: data\ndata: {"error":"x"}\n\nevent: control\ndata: {"streamNextOffset":"9"}\n\n'
    ),
    "rolls at once": answering(200, SSE),
    "cut": cut_after(0),
    "cut in the middle": cut_after(20),
}


@pytest.mark.parametrize("name", BREAKS)
async def test_a_break_does_not_reach_the_reader(
    line: Faulty, writer: StreamClient, relay: Relay, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "KEEP_ALIVE_SECONDS", 0.05)
    line.plan.extend([fine, cut_after(150), BREAKS[name], BREAKS[name]])
    async with Browser(relay) as browser:
        for number in range(6):
            await writer.append("s", [number])
            await browser.until(number + 1)
        assert browser.seen == [*range(6)]
        assert not line.plan


async def test_a_service_that_goes_silent_is_asked_again(line: Faulty, writer: StreamClient) -> None:
    line.plan.extend([fine, cut_after(150, hang=True)])
    async with Browser(Relay(Upstream(line, silence=0.1))) as browser:
        for number in range(3):
            await writer.append("s", [number])
            await browser.until(number + 1)
        assert browser.seen == [0, 1, 2]


async def test_readers_are_kept_through_trouble(
    line: Faulty, writer: StreamClient, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "KEEP_ALIVE_SECONDS", 0.05)
    async with Browser(relay) as browser:
        await browser.piece()
        line.plan.extend([busy] * 3)
        while line.plan:
            assert await browser.piece() == sse.KEEP_ALIVE
        await writer.append("s", ["after all"])
        assert await browser.until(1) == ["after all"]


@pytest.mark.parametrize("status", [401, 403, 503])
async def test_trouble_that_lasts_ends_the_answer_but_never_at_once(
    line: Faulty, writer: StreamClient, status: int
) -> None:
    """Three short answers, and a client gives the stream up for good: it must be told by the next request."""
    relay = Relay(Upstream(line, patience=0))
    began = asyncio.get_running_loop().time()
    async with Browser(relay) as browser:
        line.plan.extend([answering(status, {})] * 2)
        await browser.to_the_end()
    assert asyncio.get_running_loop().time() - began >= 1
    assert (await relay(ask())).status == status


async def test_a_service_that_has_less_than_it_gave_is_not_stormed(
    line: Faulty, writer: StreamClient, relay: Relay
) -> None:
    """A cache in between has an old page: who is behind waits for a better one, and does not ask for ever."""
    old = {**JSON, "stream-next-offset": f"{1:016d}", "stream-up-to-date": "true"}
    await writer.append("s", [0])
    async with Browser(relay) as first:
        await first.piece()
        for number in (1, 2):
            await writer.append("s", [number])
            assert len(await first.until(number)) == number
        line.plan.extend([answering(200, old, b"[]")] * 50)
        async with Browser(relay, offset=f"{1:016d}") as late:
            await late.to_the_end()
            assert late.seen == []
        assert len(line.plan) > 40
        line.plan.clear()


# --- pages -------------------------------------------------------------------------------------------------


async def test_a_page_is_as_the_service_sent_it(line: Faulty, writer: StreamClient, relay: Relay) -> None:
    await writer.append("s", ["☃", {"a": 1}])
    request = ask("-1", None)
    direct = await line.handler(request)
    page = await relay(request)
    assert (page.status, page.body) == (200, await direct.read())
    cursor = "stream-cursor"
    assert {**page.headers, cursor: ""} == {**direct.headers, cursor: ""}
    known = await relay(ask("-1", None, **{"if-none-match": page.headers["etag"]}))
    assert (known.status, known.body) == (304, b"")


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (answering(200, PAGE, b"<h1>Log in</h1>"), 503),
        (answering(200, JSON, b'{"error":"x"}'), 503),
        (answering(302, {"location": "https://login.example/"}), 500),
        (answering(500, PAGE, b"<h1>Sorry</h1>"), 503),
        (answering(429, {"retry-after": "7"}, b"slow down"), 429),
        (answering(404, {}, b"Stream not found"), 404),
        (answering(401, {}, b"wrong token: hunter2"), 401),
    ],
)
@pytest.mark.parametrize("mode", [None, "sse", "long-poll"])
async def test_nothing_else_comes_down(
    line: Faulty, writer: StreamClient, relay: Relay, fault: Fault, status: int, mode: str | None
) -> None:
    line.plan.append(fault)
    answer = await relay(ask("-1", mode))
    assert answer.status == status
    assert list(orjson.loads(await answer.read())) == ["error", "code"]
    assert b"hunter2" not in await answer.read()
    assert answer.headers.get("retry-after") == ("7" if status == 429 else "1" if status == 503 else None)


async def test_a_page_that_breaks_is_no_page(line: Faulty, writer: StreamClient, relay: Relay) -> None:
    async def torn(handler: Handler, request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"[1,"
            raise Unavailable("The connection broke.")

        return (await handler(request))._replace(body=body())  # type: ignore[arg-type]

    line.plan.append(torn)
    assert (await relay(ask("-1", None))).status == 503


# --- SSE into frames, however it is cut --------------------------------------------------------------------

BATCHES = st.lists(st.lists(st.text() | st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=5)
JSON_EVENTS = ("application/json", SSE)
BASE64_EVENTS = ("application/octet-stream", SSE | {"stream-sse-data-encoding": "base64"})


def body_of(batch: list[object], content_type: str) -> bytes:
    if content_type == "application/json":
        return b"[%b]" % b",".join(map(orjson.dumps, batch))
    return b"".join(str(item).encode() + b"\r" for item in batch)


def events_of(batch: list[object], content_type: str) -> bytes:
    """As a service says it that makes each message an event of its own."""
    if content_type == "application/json":
        return b"".join(sse.data(b"[%b]" % orjson.dumps(item)) for item in batch)
    return b"".join(sse.binary(body_of([item], content_type)) for item in batch)


@settings(max_examples=200)
@given(batches=BATCHES, cuts=st.lists(st.integers(0, 400)), breaks=st.lists(st.integers(0, 300), max_size=3))
@pytest.mark.parametrize(("content_type", "headers"), [JSON_EVENTS, BASE64_EVENTS])
def test_frames_are_the_same_however_the_wire_is_cut(
    content_type: str,
    headers: dict[str, str],
    batches: list[list[object]],
    cuts: list[int],
    breaks: list[int],
) -> None:
    """Pieces of any size, and breaks after any byte: the next connection goes on from the last control."""
    breaks = list(breaks)

    def wire_from(begin: int) -> bytes:
        return b"".join(
            events_of(batch, content_type)
            + sse.control(str(number), cursor="1", up_to_date=True, closed=number == len(batches))
            for number, batch in enumerate(batches[begin:], start=begin + 1)
        )

    async def pieces(wire: bytes) -> AsyncIterator[bytes]:
        edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
        for begin, end in pairwise(edges):
            yield wire[begin:end]

    async def service(request: Request) -> Response:
        wire = wire_from(int(request.query["offset"]))
        return Response(200, headers, pieces(wire[: breaks.pop()] if breaks else wire))  # type: ignore[arg-type]

    async def read() -> list[bytes]:
        place = Frame("", content_type, "0", "0", b"", up_to_date=True, closed=False)
        following = frames(service, "s", after=place, give_up_after=60)
        return [frame.body async for frame in following]

    with patch.object(backoff, "_FIRST", 0.0):
        assert asyncio.run(read()) == [body_of(batch, content_type) for batch in batches]
