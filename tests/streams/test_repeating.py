"""Repeating: what passes is waited out, what must not be done twice is done once."""

import pytest

from durable_chat.streams.client import StreamClient
from durable_chat.streams.client.repeating import Repeating
from durable_chat.streams.protocol.errors import TooManyRequests, Unavailable
from durable_chat.streams.protocol.exchange import Handler, Request, Response
from durable_chat.streams.server import StreamServer
from durable_chat.streams.stores.memory import MemoryStore
from tests.streams.faulty import Faulty, busy, fine, lost_answer, lost_request


@pytest.fixture
def line() -> Faulty:
    return Faulty(StreamServer(MemoryStore()).handle)


async def test_what_passes_is_not_noticed(line: Faulty) -> None:
    client = StreamClient(Repeating(line))
    line.plan.extend([lost_answer, busy])
    await client.create("s")
    await StreamClient(line).append("s", [1])
    for operation in (client.read, client.head, client.delete):
        line.plan.extend([lost_request, busy])
        await operation("s")
    assert [line.count(method) for method in ("PUT", "GET", "HEAD", "DELETE")] == [3, 3, 3, 3]


@pytest.mark.parametrize("fault", [lost_request, lost_answer, busy])
async def test_an_append_goes_through_once(line: Faulty, fault: Handler) -> None:
    client = StreamClient(Repeating(line))
    await client.create("s")
    line.plan.append(fault)
    with pytest.raises(Unavailable):
        await client.append("s", [1])
    assert line.count("POST") == 1


async def test_a_refusal_is_an_answer(line: Faulty) -> None:
    response = await Repeating(line)(Request("GET", "missing"))
    assert (response.status, line.count("GET")) == (404, 1)


async def test_who_asks_for_more_time_than_there_is_gets_no_second_request(line: Faulty) -> None:
    async def later(handler: Handler, request: Request) -> Response:
        return Response(429, {"retry-after": "30"})

    line.plan.extend([later, fine])
    with pytest.raises(TooManyRequests) as told:
        await Repeating(line)(Request("GET", "s"))
    assert (told.value.retry_after, line.count("GET")) == (30, 1)


async def test_it_gives_up(line: Faulty) -> None:
    line.plan.extend([lost_request] * 100)
    with pytest.raises(Unavailable):
        await Repeating(line, seconds=0.3)(Request("GET", "s"))
    assert 1 < line.count("GET") < 10
