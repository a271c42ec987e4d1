"""subscribe: every batch once and in order, over connections that roll, break, stall and refuse."""

import asyncio
from contextlib import aclosing

import pytest

from durable_chat.streams.client import Batch, StreamClient, subscribe
from durable_chat.streams.protocol.errors import (
    BadRequest,
    Forbidden,
    StreamGone,
    StreamNotFound,
    Unauthorized,
    Unavailable,
)
from durable_chat.streams.protocol.exchange import Handler, Request, Response
from durable_chat.streams.protocol.offsets import NOW, START
from durable_chat.streams.server import StreamServer
from durable_chat.streams.stores.memory import MemoryStore
from tests.streams.faulty import CutBody, Fault, Faulty, busy, cut_after, fine, lost_request

SSE = {"content-type": "text/event-stream"}


@pytest.fixture
def line() -> Faulty:
    return Faulty(StreamServer(MemoryStore()).handle)


@pytest.fixture
async def client(line: Faulty) -> StreamClient:
    client = StreamClient(line)
    await client.create("s")
    line.requests.clear()
    return client


@pytest.fixture
def writer(line: Faulty) -> StreamClient:
    """Somebody else, whose line is fine."""
    return StreamClient(line.handler)


def saying(text: bytes) -> Fault:
    """A live read that says this much and ends."""

    async def fault(handler: Handler, request: Request) -> Response:
        return Response(200, SSE, text)

    return fault


def items(batches: list[Batch]) -> list[object]:
    return [item for batch in batches for item in batch.items]


def assert_seamless(batches: list[Batch], start: str = START) -> None:
    places = [start, *(batch.offset for batch in batches)]
    assert [batch.before for batch in batches] == places[:-1]


async def collect(client: StreamClient, **options: object) -> list[Batch]:
    return [batch async for batch in subscribe(client, "s", **options)]  # type: ignore[arg-type]


async def test_what_was_there_and_what_comes_until_it_is_closed(client, writer):
    await writer.append("s", [1, 2])
    batches = []
    async for batch in subscribe(client, "s"):
        batches.append(batch)
        if batch.up_to_date and len(batches) < 4:
            await writer.append("s", [len(batches)])
        elif not batch.closed:
            await writer.close("s")
    assert items(batches) == [1, 2, 1, 2, 3]
    assert_seamless(batches)
    assert [batch.closed for batch in batches] == [False] * (len(batches) - 1) + [True]


async def test_not_live_ends_at_the_tail(client, writer):
    await writer.append("s", [1])
    batches = await collect(client, live=False)
    assert items(batches) == [1]
    assert batches[-1].up_to_date
    assert [batch.items for batch in await collect(client, live=False, offset=batches[-1].offset)] == [()]


async def test_a_closed_stream_ends_at_once(client, writer, line):
    await writer.append("s", [1], close=True)
    assert items(await collect(client)) == [1]
    assert not any("live" in request.query for request in line.requests)


async def test_an_empty_stream_is_up_to_date_once(client, writer, line):
    async with aclosing(subscribe(client, "s")) as batches:
        first = await anext(batches)
        assert (first.items, first.before, first.up_to_date) == ((), START, True)
        coming = asyncio.create_task(anext(batches))
        await line.reached(2)
        await writer.append("s", ["news"])
        assert (await coming).items == ("news",)


async def test_now_skips_what_was_there(client, writer):
    tail = (await writer.append("s", ["old"])).offset
    async with aclosing(subscribe(client, "s", offset=NOW)) as batches:
        first = await anext(batches)
        assert (first.items, first.before, first.offset) == ((), tail, tail)
        await writer.append("s", ["new"])
        assert (await anext(batches)).items == ("new",)


@pytest.mark.parametrize("keep", range(0, 260, 13))
async def test_a_connection_that_breaks_anywhere_is_taken_up_again(client, writer, line, keep):
    await writer.append("s", ["before"])
    line.plan.extend([fine, cut_after(keep), cut_after(keep), busy])
    batches = []
    async for batch in subscribe(client, "s"):
        batches.append(batch)
        if items(batches) == ["before"]:
            await writer.append("s", ["during", "☃"])
        if items(batches) == ["before", "during", "☃"] and not batch.closed:
            await writer.append("s", ["last"], close=True)
    assert items(batches) == ["before", "during", "☃", "last"]
    assert_seamless(batches)


async def test_a_silent_connection_is_replaced(client, writer, line):
    seen: list[CutBody] = []
    line.plan.extend([fine, cut_after(1, hang=True, seen=seen)])
    async for batch in subscribe(client, "s", silence=0.05):
        if batch.up_to_date and not batch.closed:
            await writer.append("s", ["unheard"], close=True)
    assert batch.items == ("unheard",)
    assert [body.closed for body in seen] == [True]


async def test_leaving_closes_the_connection(client, writer, line):
    seen: list[CutBody] = []
    line.plan.extend([fine, cut_after(10_000, seen=seen)])
    async with aclosing(subscribe(client, "s")) as batches:
        await anext(batches)
        await writer.append("s", [1])
        await anext(batches)
        assert [body.closed for body in seen] == [False]
    assert [body.closed for body in seen] == [True]


async def test_a_cancelled_reader_closes_the_connection(client, line):
    seen: list[CutBody] = []
    line.plan.extend([fine, cut_after(10_000, seen=seen)])
    reader = asyncio.create_task(collect(client))
    await line.reached(2)
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.wait({reader})
    assert [body.closed for body in seen] == [True]


@pytest.mark.parametrize(
    "text",
    [b"", b'event: control\ndata: {"streamNextOffset":"5","streamCursor":"9","upToDate":true}\n\n'],
)
async def test_a_server_that_ends_live_reads_at_once_is_not_stormed(text):
    requests = []

    async def handler(request: Request) -> Response:
        requests.append(request)
        if "live" in request.query:
            return Response(200, SSE, text)
        return Response(
            200,
            {"content-type": "application/json", "stream-next-offset": "5", "stream-up-to-date": "true"},
            b"[]",
        )

    with pytest.raises(Unavailable):
        await collect(StreamClient(handler), give_up_after=0.5)
    assert 2 < len(requests) < 10


async def test_a_server_whose_pages_lead_nowhere_is_not_stormed():
    requests = []

    async def handler(request: Request) -> Response:
        requests.append(request)
        return Response(200, {"content-type": "application/json", "stream-next-offset": "5"}, b"[]")

    with pytest.raises(Unavailable):
        await collect(StreamClient(handler), give_up_after=0.5)
    assert 2 < len(requests) < 10


async def test_offset_and_cursor_go_into_the_next_connection(client, line):
    first = (
        b'event: data\ndata: [1]\n\nevent: control\ndata: {"streamNextOffset":"7","streamCursor":"41"}\n\n'
    )
    last = b'event: control\ndata: {"streamNextOffset":"7","streamClosed":true}\n\n'
    empty = Response(
        200,
        {"content-type": "application/json", "stream-next-offset": "5", "stream-up-to-date": "true"},
        b"[]",
    )

    async def page(handler: Handler, request: Request) -> Response:
        return empty

    async def no_page(handler: Handler, request: Request) -> Response:
        return Response(
            200,
            {"content-type": "application/json", "stream-next-offset": "7", "stream-up-to-date": "true"},
            b"[]",
        )

    line.plan.extend([page, saying(first), no_page, saying(last)])
    batches = await collect(client)
    assert items(batches) == [1]
    assert_seamless(batches)
    queries = [request.query for request in line.requests]
    assert queries == [
        {"offset": START},
        {"live": "sse", "offset": "5"},
        {"offset": "7"},
        {"live": "sse", "offset": "7", "cursor": "41"},
    ]


@pytest.mark.parametrize(
    "garbage",
    [
        b"<html>We are down</html>",
        b"event: data\ndata: [1]\n\n",
        b'event: data\ndata: [1\n\nevent: control\ndata: {"streamNextOffset":"9"}\n\n',
        b"event: data\ndata: [1]\n\nevent: control\ndata: {}\n\n",
        b"event: data\ndata: [1]\n\nevent: control\ndata: []\n\n",
        b"event: data\ndata: [1]\n\nevent: control\ndata: \xff\n\n",
    ],
)
async def test_garbage_is_dropped_and_read_again(client, writer, line, garbage):
    line.plan.extend([fine, saying(garbage)])
    batches = []
    async for batch in subscribe(client, "s"):
        batches.append(batch)
        if not batch.closed:
            await writer.append("s", ["real"], close=True)
    assert items(batches) == ["real"]


async def test_trouble_is_waited_out_at_any_point(client, writer, line):
    await writer.append("s", [1], close=True)
    line.plan.extend([lost_request, busy, lost_request])
    assert items(await collect(client)) == [1]


async def test_deletion_ends_a_live_reader(client, writer):
    async def read() -> None:
        async for batch in subscribe(client, "s"):
            if batch.up_to_date:
                asyncio.get_running_loop().create_task(writer.delete("s"))

    with pytest.raises(StreamNotFound):
        await read()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, BadRequest), (401, Unauthorized), (403, Forbidden), (404, StreamNotFound), (410, StreamGone)],
)
@pytest.mark.parametrize("place", [0, 1])
async def test_a_refusal_is_raised(client, line, status, kind, place):
    async def refusal(handler: Handler, request: Request) -> Response:
        return Response(status)

    line.plan.extend([fine] * place + [refusal])
    with pytest.raises(kind):
        await collect(client)
    assert line.count("GET") == place + 1
