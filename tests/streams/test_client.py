"""StreamClient: each operation against the real server, and what odd answers become."""

import pytest

from durable_chat.streams.client import Appended, Batch, Head, Stamp, StreamClient
from durable_chat.streams.protocol.errors import (
    BadRequest,
    Forbidden,
    ProducerGap,
    StaleEpoch,
    StreamClosed,
    StreamError,
    StreamExists,
    StreamGone,
    StreamNotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from durable_chat.streams.protocol.exchange import Request, Response
from durable_chat.streams.protocol.offsets import NOW, START
from durable_chat.streams.server import StreamServer
from durable_chat.streams.stores.memory import MemoryStore


@pytest.fixture
def client() -> StreamClient:
    return StreamClient(StreamServer(MemoryStore()).handle)


def answering(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> StreamClient:
    async def handler(request: Request) -> Response:
        return Response(status, headers or {}, body)

    return StreamClient(handler)


async def test_create_finds_what_it_has_created(client):
    tail = await client.create("s")
    assert await client.create("s") == tail
    assert await client.head("s") == Head(tail, closed=False, content_type="application/json")


async def test_create_refuses_another_configuration(client):
    await client.create("s")
    with pytest.raises(StreamExists):
        await client.create("s", content_type="text/plain")
    await client.close("s")
    with pytest.raises(StreamExists):
        await client.create("s")


async def test_create_with_everything_at_once(client):
    tail = await client.create("s", closed=True, body=b'[{"a":1},2]')
    assert await client.read("s") == Batch(({"a": 1}, 2), START, tail, up_to_date=True, closed=True)


async def test_append_and_read_on(client):
    await client.create("s")
    first = await client.append("s", [{"n": 1}, [2, 3]])
    second = await client.append("s", ["\u2028 \u0085 ☃"])
    assert first.offset
    assert second.offset
    assert await client.read("s") == Batch(
        ({"n": 1}, [2, 3], "\u2028 \u0085 ☃"), START, second.offset, up_to_date=True, closed=False
    )
    page = await client.read("s", offset=first.offset)
    assert (page.items, page.before, page.offset) == (("\u2028 \u0085 ☃",), first.offset, second.offset)


async def test_now_is_the_tail(client):
    await client.create("s")
    tail = (await client.append("s", [1])).offset
    assert await client.read("s", offset=NOW) == Batch((), tail, tail, up_to_date=True, closed=False)


async def test_a_stamp_is_taken_once(client):
    await client.create("s")
    stamp = Stamp("p", 0, 0)
    first = await client.append("s", [1], producer=stamp)
    again = await client.append("s", [1], producer=stamp)
    assert (first.duplicate, again.duplicate) == (False, True)
    assert (await client.read("s")).items == (1,)


async def test_a_later_epoch_fences_and_a_gap_is_told(client):
    await client.create("s")
    await client.append("s", [1], producer=Stamp("p", 3, 0))
    with pytest.raises(StaleEpoch) as fenced:
        await client.append("s", [2], producer=Stamp("p", 2, 0))
    assert fenced.value.epoch == 3
    with pytest.raises(ProducerGap):
        await client.append("s", [2], producer=Stamp("p", 3, 2))


async def test_closing_with_the_last_append_and_alone(client):
    await client.create("s")
    last = await client.append("s", [1], producer=Stamp("p", 0, 0), close=True)
    assert (await client.head("s")).closed
    assert await client.close("s") == last.offset
    assert (await client.append("s", [1], producer=Stamp("p", 0, 0), close=True)).duplicate
    with pytest.raises(StreamClosed):
        await client.append("s", [2])


async def test_an_append_of_nothing_is_refused(client):
    await client.create("s")
    with pytest.raises(BadRequest):
        await client.append("s", [])


async def test_delete_is_done_when_there_is_nothing(client):
    await client.create("s")
    await client.delete("s")
    await client.delete("s")
    for operation in (client.read, client.head, client.close):
        with pytest.raises(StreamNotFound):
            await operation("s")
    with pytest.raises(StreamNotFound):
        await client.append("s", [1])


async def test_gone_counts_as_deleted():
    await answering(410).delete("s")
    with pytest.raises(StreamGone):
        await answering(410).read("s")


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (401, {}, Unauthorized),
        (403, {}, Forbidden),
        (403, {"producer-epoch": "4"}, StaleEpoch),
        (408, {}, Unavailable),
        (409, {"stream-closed": "true"}, StreamClosed),
        (425, {}, Unavailable),
        (429, {"retry-after": "7"}, TooManyRequests),
        (500, {}, Unavailable),
        (502, {}, Unavailable),
        (503, {"retry-after": "7"}, Unavailable),
        (302, {"location": "/login"}, StreamError),
    ],
)
async def test_a_refusal_is_the_error_it_stands_for(status, headers, kind):
    with pytest.raises(StreamError) as refused:
        await answering(status, headers, b"<h1>No</h1>").append("s", [1])
    assert type(refused.value) is kind
    assert "<h1>" not in str(refused.value)


@pytest.mark.parametrize("status", [200, 201, 204])
async def test_somebody_elses_yes_is_not_taken_for_an_append(status):
    client = answering(status, {"content-type": "text/html"}, b"<h1>Please log in</h1>")
    with pytest.raises(Unavailable):
        await client.append("s", [1])
    with pytest.raises(Unavailable):
        await client.create("s")


async def test_a_duplicate_may_carry_no_offset():
    appended = await answering(204).append("s", [1], producer=Stamp("p", 0, 0))
    assert appended == Appended(None, duplicate=True)


@pytest.mark.parametrize("body", [b"", b"<html>", b'[{"a":', b'{"a":1}', b'["\xff"]'])
async def test_a_page_that_is_no_list_of_messages_is_trouble_not_data(body):
    with pytest.raises(Unavailable):
        await answering(200, {"stream-next-offset": "5"}, body).read("s")
