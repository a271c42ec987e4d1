"""The client against the embedded server behind uvicorn: the same calls, over HTTP as it is deployed."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
import uvicorn

from durable_chat.streams.client import Producer, Stamp, StreamClient, subscribe
from durable_chat.streams.client.http import HTTPHandler
from durable_chat.streams.client.pool import Pool
from durable_chat.streams.embedded.asgi import StreamsApplication
from durable_chat.streams.protocol.errors import Forbidden, StaleEpoch, StreamNotFound, Unauthorized
from durable_chat.streams.protocol.secrets import StreamsSecret
from durable_chat.streams.server import StreamServer
from durable_chat.streams.server.auth import Access
from durable_chat.streams.stores.memory import MemoryStore


@pytest.fixture
async def url() -> AsyncIterator[str]:
    access = Access(write_token="write", read_token="read")
    application = StreamsApplication(StreamServer(MemoryStore()).handle, "/v1/stream/", access)
    config = uvicorn.Config(application, lifespan="off", ws="none", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1/stream/"
        server.should_exit = True
        await serving


@pytest.fixture
async def connections() -> AsyncIterator[Pool]:
    async with aclosing(Pool()) as connections:
        yield connections


@pytest.fixture
def client(url: str, connections: Pool) -> StreamClient:
    return StreamClient(HTTPHandler(url, lambda: connections, token=StreamsSecret("write")))


async def test_a_stream_from_its_creation_to_its_deletion(client):
    path = "chat/☃ 100%"
    start = await client.create(path)
    assert await client.create(path) == start
    first = await client.append(path, ["a", {"b": "\u2028\u0085"}], producer=Stamp("p", 1, 0))
    again = await client.append(path, ["a", {"b": "\u2028\u0085"}], producer=Stamp("p", 1, 0))
    assert (first.duplicate, again.duplicate) == (False, True)
    with pytest.raises(StaleEpoch) as fenced:
        await client.append(path, ["z"], producer=Stamp("p", 0, 0))
    assert fenced.value.epoch == 1
    page = await client.read(path)
    assert (page.items, page.offset, page.up_to_date) == (("a", {"b": "\u2028\u0085"}), first.offset, True)
    assert (await client.head(path)).offset == await client.close(path) == first.offset
    await client.delete(path)
    await client.delete(path)
    with pytest.raises(StreamNotFound):
        await client.read(path)


async def test_a_reader_follows_a_writer_to_the_end(client):
    await client.create("s")
    sent = [{"n": number, "text": "☃\r\n" * (number % 50)} for number in range(500)]

    async def write() -> None:
        async with Producer(client, "s", id="p", epoch=0) as producer:
            for item in sent:
                await producer.add(item)
        await client.close("s")

    writer = asyncio.create_task(write())
    assert [item async for batch in subscribe(client, "s") for item in batch.items] == sent
    await writer


async def test_leaving_a_live_read_leaves_nothing_open(client, connections):
    await client.create("s")
    async with aclosing(subscribe(client, "s")) as batches:
        assert (await anext(batches)).up_to_date
        reading = asyncio.create_task(anext(batches))
        await client.append("s", [1])
        assert (await reading).items == (1,)


async def test_tokens_are_told_apart(client, url, connections):
    await client.create("s")
    reader = StreamClient(HTTPHandler(url, lambda: connections, token=StreamsSecret("read")))
    assert (await reader.read("s")).items == ()
    with pytest.raises(Forbidden):
        await reader.append("s", [1])
    with pytest.raises(Unauthorized):
        await StreamClient(HTTPHandler(url, lambda: connections)).read("s")
