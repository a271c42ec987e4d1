"""Producer: every item once and in order, whatever the line does; and what it leaves behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_chat.streams.client import Producer, Stamp, StreamClient, subscribe
from durable_chat.streams.client.backoff import delay_before
from durable_chat.streams.protocol.errors import StaleEpoch, StreamNotFound, Unavailable
from durable_chat.streams.protocol.exchange import Handler, Request, Response
from durable_chat.streams.server import StreamServer
from durable_chat.streams.stores.memory import MemoryStore
from tests.streams.faulty import Faulty, busy, fine, lost_answer, lost_request


@pytest.fixture
def line() -> Faulty:
    return Faulty(StreamServer(MemoryStore()).handle)


@pytest.fixture
async def client(line: Faulty) -> AsyncIterator[StreamClient]:
    client = StreamClient(line)
    await client.create("s")
    line.requests.clear()
    yield client
    assert asyncio.all_tasks() == {asyncio.current_task()}


@asynccontextmanager
async def held(line: Faulty) -> AsyncIterator[None]:
    line.open.clear()
    try:
        yield
    finally:
        line.open.set()


async def everything(client: StreamClient) -> list[object]:
    return [item async for batch in subscribe(client, "s", live=False) for item in batch.items]


def seqs(line: Faulty) -> list[str]:
    return [request.headers["producer-seq"] for request in line.requests if request.method == "POST"]


async def add_and_fail(producer: Producer, item: object) -> None:
    async with producer:
        await producer.add(item)
        raise ZeroDivisionError


async def test_what_is_added_is_there_when_it_is_left(client):
    async with Producer(client, "s", id="p", epoch=0) as producer:
        for number in range(1000):
            await producer.add(number)
    assert await everything(client) == list(range(1000))
    assert producer.offset == (await client.head("s")).offset


async def test_an_item_goes_at_once_and_what_comes_meanwhile_goes_together(client, line):
    async with Producer(client, "s", id="p", epoch=0) as producer:
        async with held(line):
            await producer.add("first")
            await asyncio.sleep(0)
            for number in range(50):
                await producer.add(number)
            assert len(line.requests) == 1
        await producer.flush()
        assert seqs(line) == ["0", "1"]
        assert line.most_in_flight == 1


async def test_batches_have_a_limit(client, line):
    async with Producer(client, "s", id="p", epoch=0, max_batch=3) as producer:
        for number in range(7):
            await producer.add(number)
    assert seqs(line) == ["0", "1", "2"]
    assert await everything(client) == list(range(7))


async def test_big_items_do_not_share_a_request(client, line):
    async with Producer(client, "s", id="p", epoch=0) as producer:
        for _ in range(3):
            await producer.add("x" * 200_000)
    assert len(seqs(line)) == 3


async def test_an_append_stands_alone_between_its_neighbours(client, line):
    async with Producer(client, "s", id="p", epoch=0) as producer:
        await producer.add("before")
        offset = await producer.append(["alone", 1])
        await producer.add("after")
        assert await producer.flush() == producer.offset != offset
    assert seqs(line) == ["0", "1", "2"]
    assert (await client.read("s", offset=offset)).items == ("after",)
    assert await everything(client) == ["before", "alone", 1, "after"]


async def test_it_takes_up_an_epoch_where_another_left_it(client):
    await client.append("s", ["echo"], producer=Stamp("p", 4, 0))
    async with Producer(client, "s", id="p", epoch=4, seq=1) as producer:
        await producer.add("run")
    assert await everything(client) == ["echo", "run"]


async def test_an_item_that_is_not_json_fails_where_it_is_added(client):
    async with Producer(client, "s", id="p", epoch=0) as producer:
        await producer.add(1)
        with pytest.raises(TypeError):
            await producer.add(object())
        with pytest.raises(TypeError):
            await producer.append([2, object()])
        with pytest.raises(ValueError, match="needs an item"):
            await producer.append([])
        await producer.add(3)
    assert await everything(client) == [1, 3]


async def test_flushing_nothing(client, line):
    async with Producer(client, "s", id="p", epoch=0) as producer:
        assert await producer.flush() is None
    assert line.requests == []


@settings(max_examples=12, deadline=None)
@given(
    plan=st.lists(st.sampled_from([fine, lost_request, lost_answer, busy]), max_size=8),
    cuts=st.lists(st.sampled_from(["add", "append", "flush"]), max_size=12),
)
def test_no_fault_of_the_line_loses_or_doubles_anything(plan, cuts):
    async def scenario() -> None:
        server = StreamServer(MemoryStore()).handle
        await StreamClient(server).create("s")
        expected = []
        async with Producer(StreamClient(Faulty(server, plan)), "s", id="p", epoch=0) as producer:
            for number, cut in enumerate(cuts):
                expected.append(number)
                if cut == "append":
                    offset = await producer.append([number])
                    assert offset == (await StreamClient(server).head("s")).offset
                    continue
                await producer.add(number)
                if cut == "flush":
                    await producer.flush()
        assert await everything(StreamClient(server)) == expected

    asyncio.run(scenario())


async def test_a_retry_carries_the_same_stamp(client, line):
    line.plan.extend([lost_answer, busy, lost_request])
    async with Producer(client, "s", id="p", epoch=0) as producer:
        await producer.append([1])
        await producer.append([2])
    assert seqs(line) == ["0", "0", "0", "0", "1"]
    assert await everything(client) == [1, 2]


async def test_a_duplicate_without_an_offset_is_asked_for_the_tail(client, line):
    async def terse(handler: Handler, request: Request) -> Response:
        response = await handler(request)
        assert response.status == 204
        return response._replace(headers={})

    line.plan.extend([lost_answer, terse, lost_request])
    async with Producer(client, "s", id="p", epoch=0) as producer:
        offset = await producer.append([1])
    assert offset == (await client.head("s")).offset
    assert await everything(client) == [1]


async def test_a_newer_epoch_ends_it(client):
    producer = Producer(client, "s", id="p", epoch=0)

    async def write() -> None:
        async with producer:
            await producer.append([1])
            await client.append("s", ["fence"], producer=Stamp("p", 1, 0))
            await producer.add(2)

    with pytest.raises(StaleEpoch):
        await write()
    for call in (producer.add(3), producer.append([3]), producer.flush()):
        with pytest.raises(StaleEpoch):
            await call
    assert await everything(client) == [1, "fence"]


async def test_a_failure_reaches_whoever_waits(client, line):
    producer = Producer(client, "s", id="p", epoch=0, max_buffer=1)
    async with held(line):
        waiting = [asyncio.create_task(call) for call in (producer.append([1]), producer.add(2))]
        await line.reached(1)
        waiting.append(asyncio.create_task(producer.flush()))
        await asyncio.sleep(0)
        await line.handler(Request("DELETE", "s"))
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [StreamNotFound] * 3
    with pytest.raises(StreamNotFound):
        async with producer:
            """Leaving it says so, even to somebody who has caught the rest."""


async def test_it_gives_up_in_the_end(client, line):
    line.plan.extend([lost_request] * 100)
    with pytest.raises(Unavailable):
        async with Producer(client, "s", id="p", epoch=0, give_up_after=0.3) as producer:
            await producer.add(1)
    assert 1 < len(line.requests) < 10


async def test_a_full_buffer_holds_the_writer_back(client, line):
    async with Producer(client, "s", id="p", epoch=0, max_buffer=2) as producer:
        async with held(line):
            await producer.add(1)
            await producer.add(2)
            third = asyncio.create_task(producer.add(3))
            await asyncio.wait({third}, timeout=0.02)
            assert not third.done()
        await third
    assert await everything(client) == [1, 2, 3]


async def test_a_wait_that_is_cancelled_loses_nothing(client, line):
    async with Producer(client, "s", id="p", epoch=0, max_buffer=1) as producer, held(line):
        await producer.add(1)
        second = asyncio.create_task(producer.add(2))
        append = asyncio.create_task(producer.append([3]))
        await asyncio.sleep(0)
        second.cancel()
        append.cancel()
        await asyncio.wait({second, append})
    assert second.cancelled()
    assert append.cancelled()
    assert await everything(client) == [1, 2, 3]


async def test_what_is_queued_goes_out_although_the_block_fails(client):
    with pytest.raises(ZeroDivisionError):
        await add_and_fail(Producer(client, "s", id="p", epoch=0), "received")
    assert await everything(client) == ["received"]


async def test_the_block_fails_first(client, line):
    line.plan.extend([lost_request] * 100)
    with pytest.raises(ZeroDivisionError):
        await add_and_fail(Producer(client, "s", id="p", epoch=0, give_up_after=0.1), 1)


async def test_a_cancelled_block_still_sends(client):
    async def run() -> None:
        async with Producer(client, "s", id="p", epoch=0) as producer:
            await producer.add("received")
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert await everything(client) == ["received"]


@pytest.mark.parametrize("failing", [False, True])
async def test_leaving_can_be_cancelled_too(client, line, failing):
    async def run() -> None:
        async with Producer(client, "s", id="p", epoch=0) as producer:
            await producer.add(1)
            if failing:
                raise ZeroDivisionError

    async with held(line):
        task = asyncio.create_task(run())
        await line.reached(1)
        task.cancel()
        await asyncio.wait({task})
    assert task.cancelled()
    assert line.in_flight == 0


async def test_one_that_was_left_takes_nothing(client):
    async with Producer(client, "s", id="p", epoch=0) as producer:
        await producer.add(1)
    with pytest.raises(RuntimeError):
        await producer.add(2)
    assert await everything(client) == [1]


async def test_a_handler_that_breaks_is_told_like_any_failure(client, line):
    async def broken(handler: Handler, request: Request) -> Response:
        raise LookupError("a bug")

    line.plan.append(broken)
    with pytest.raises(LookupError):
        async with Producer(client, "s", id="p", epoch=0) as producer:
            await producer.add(1)


@given(
    pauses=st.integers(0, 10_000), asked=st.sampled_from([None, "0", "2", "nonsense", "1e9", "nan", "inf"])
)
def test_pauses_double_to_a_ceiling_and_honour_what_is_asked(pauses, asked):
    error = Unavailable(headers={} if asked is None else {"retry-after": asked})
    delay = delay_before(pauses, error)
    assert 0.05 <= delay <= (60 if asked in {"1e9", "inf"} else 5)
    if pauses == 0 and asked is None:
        assert delay <= 0.1
    if asked == "2":
        assert delay >= 2
