"""Two server processes on one SQLite file: one set of rules, and readers of either hear of both."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import cycle
from pathlib import Path
from statistics import median

import pytest

from durable_chat.streams.client import Producer, Stamp, StreamClient, subscribe
from durable_chat.streams.client.pool import Pool
from durable_chat.streams.protocol.errors import (
    Conflict,
    ProducerGap,
    StaleEpoch,
    StreamClosed,
    StreamExists,
    StreamNotFound,
)
from durable_chat.streams.protocol.exchange import Request
from tests.streams.served import Served

Pair = tuple[StreamClient, StreamClient]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    servers = [Served(tmp_path / "streams.sqlite3") for _ in range(2)]
    async with aclosing(Pool()) as connections:
        yield servers[0].client(connections), servers[1].client(connections)
    for server in servers:
        server.end()


async def test_what_one_acknowledged_the_other_has(pair: Pair) -> None:
    one, other = pair
    await one.create("s")
    offset = "-1"
    for number, (writer, reader) in zip(range(40), cycle([(one, other), (other, one)]), strict=False):
        appended = await writer.append("s", [number])
        page = await reader.read("s", offset=offset)
        assert (page.items, page.offset) == ((number,), appended.offset)
        offset = page.offset
    await other.close("s")
    with pytest.raises(StreamClosed):
        await one.append("s", [1])
    await other.delete("s")
    with pytest.raises(StreamNotFound):
        await one.read("s")


async def test_of_many_who_create_a_stream_one_does(pair: Pair) -> None:
    one, other = pair
    requests = [Request("PUT", "s", {}, {"content-type": "text/plain"}) for _ in range(20)]
    answers = await asyncio.gather(*(pair[n % 2].open(request) for n, request in enumerate(requests)))
    assert sorted(answer.status for answer in answers) == [200] * 19 + [201]
    with pytest.raises(StreamExists):
        await other.create("s")
    await one.head("s")


async def test_a_producers_batch_is_taken_by_one_of_them(pair: Pair) -> None:
    one, _ = pair
    await one.create("s")
    for seq in range(20):
        stamp = Stamp("p", 0, seq)
        twice = await asyncio.gather(*(client.append("s", [seq], producer=stamp) for client in pair))
        assert sorted(appended.duplicate for appended in twice) == [False, True]
    assert (await one.read("s")).items == tuple(range(20))


async def test_fences_and_gaps_hold_across(pair: Pair) -> None:
    one, other = pair
    await one.create("s")
    await one.append("s", ["a"], producer=Stamp("p", 0, 0))
    with pytest.raises(ProducerGap):
        await other.append("s", ["c"], producer=Stamp("p", 0, 2))
    await other.append("s", ["b"], producer=Stamp("p", 1, 0))
    with pytest.raises(StaleEpoch) as fence:
        await one.append("s", ["zombie"], producer=Stamp("p", 0, 1))
    assert fence.value.epoch == 1
    await one.append("s", ["c"], producer=Stamp("p", 1, 1))
    assert (await other.read("s")).items == ("a", "b", "c")


async def test_sequence_numbers_rise_across(pair: Pair) -> None:
    one, other = pair
    await one.create("s")

    async def append(client: StreamClient, seq: str) -> None:
        headers = {"content-type": "application/json", "stream-seq": seq}
        await (await client.open(Request("POST", "s", {}, headers, b"[1]"))).aclose()

    await append(one, "01")
    with pytest.raises(Conflict):
        await append(other, "01")
    await append(other, "02")
    with pytest.raises(Conflict):
        await append(one, "02")


async def test_many_writers_of_both_lose_and_double_nothing(pair: Pair) -> None:
    one, other = pair
    await one.create("s")
    writers, each = 16, 25

    async def write(name: int) -> None:
        async with Producer(pair[name % 2], "s", id=f"p{name}", epoch=0) as producer:
            for number in range(each):
                await producer.append([[name, number]])

    async def read(client: StreamClient) -> list[list[int]]:
        async with aclosing(subscribe(client, "s")) as batches:
            return [item async for batch in batches for item in batch.items]

    readers = [asyncio.create_task(read(client)) for client in pair]
    await asyncio.gather(*(write(name) for name in range(writers)))
    await other.close("s")
    heard, same = await asyncio.gather(*readers)
    assert heard == same
    for name in range(writers):
        assert [number for writer, number in heard if writer == name] == list(range(each))


@pytest.mark.parametrize("live", ["sse", "long-poll"])
async def test_a_reader_is_woken_by_the_other_process(pair: Pair, live: str) -> None:
    one, other = pair
    await one.create("s")
    delays: list[float] = []
    offset = (await one.head("s")).offset
    for number in range(20):
        reading = asyncio.create_task(_next(other, offset, live))
        await _waiting(other, reading)
        began = time.perf_counter()
        offset = (await one.append("s", [number])).offset or ""
        assert await reading == b"%d" % number
        delays.append(time.perf_counter() - began)
    print(f"woken across processes ({live}): {median(delays) * 1e3:.1f} ms, {max(delays) * 1e3:.1f} at most")


async def _next(client: StreamClient, offset: str, live: str) -> bytes:
    """The first message behind ``offset``, however it comes."""
    async with await client.open(Request("GET", "s", {"offset": offset, "live": live})) as response:
        if live == "long-poll":
            return (await response.read()).strip(b"[]")
        assert not isinstance(response.body, bytes)
        async for piece in response.body:
            for line in piece.splitlines():
                if line.startswith(b"data:["):
                    return line.removeprefix(b"data:").strip(b"[]")
    raise AssertionError("The live read ended without a message.")


async def _waiting(client: StreamClient, reading: "asyncio.Task[bytes]") -> None:
    """By then the reader's request has long been taken up: others that came after it have been answered."""
    for _ in range(3):
        await client.head("s")
    assert not reading.done()
