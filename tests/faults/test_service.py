"""A real streams service, and a wire to it that fails in every way: nothing is lost, nothing is doubled."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from durable_chat.streams.client import Producer, StreamClient, subscribe
from durable_chat.streams.client.http import HTTPHandler
from durable_chat.streams.client.pool import Pool
from durable_chat.streams.client.repeating import Repeating
from durable_chat.streams.client.transport import Patience
from durable_chat.streams.protocol.secrets import StreamsSecret
from tests import service
from tests.faults.conftest import Serve
from tests.faults.evidence import echoes, rows, said, settled, words
from tests.faults.people import DurableReader, Person, SocketReader, asked, following, until
from tests.live import LiveServer
from tests.service import gate
from tests.service.gate import Fault

BRISK = "words=150 delay=10"
AWAY_SECONDS = 30.0
FAULTS = {
    "refused with 503": gate.refusal(503, "1"),
    "refused with 429": gate.refusal(429, "1"),
    "a gateway's 502": gate.refusal(502),
    "reset before": gate.reset_before,
    "reset within": gate.reset_within,
    "answer lost": gate.answer_lost,
    "garbage": gate.garbage,
    "login page": gate.login_page,
}


@pytest.fixture
def elsewhere() -> Iterator[service.Service]:
    with service.running() as running:
        yield running


@pytest.fixture
def server(serve: Serve, elsewhere: service.Service) -> LiveServer:
    return serve(lease_seconds=5, **elsewhere.env)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_an_answer_is_written_once_whatever_becomes_of_its_appends(
    server: LiveServer, person: Person, elsewhere: service.Service, fault: Fault
) -> None:
    conversation, run_id = await asked(person, BRISK)
    readers = [DurableReader(person, conversation), SocketReader(person, conversation)]
    view = DurableReader(person, conversation, run=run_id)
    async with following(*readers, view):
        await until(lambda: words(10) in readers[0].text)
        elsewhere.gate.faults += [("POST", fault)] * 2
        chunks = await settled(person, conversation, directory=server.directory)
        assert elsewhere.gate.faults == []
        assert [row.state for row in rows(server.directory, conversation)] == ["done"]
        assert (echoes(chunks), said(chunks, run_id)) == (["m-1"], words(150))
        for reader in readers:
            await reader.arrives(at=chunks)
        await view.arrives()
        assert view.text == words(150)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_send_is_taken_once_whatever_becomes_of_its_echo(
    server: LiveServer, person: Person, elsewhere: service.Service, fault: Fault
) -> None:
    conversation = await person.begin()
    for method in ("HEAD", "POST"):
        elsewhere.gate.faults += [(method, fault)] * 2
    reader = DurableReader(person, conversation)
    async with following(reader):
        await until(lambda: _taken(person, conversation))
        chunks = await settled(person, conversation, directory=server.directory)
        assert echoes(chunks) == ["m-1"]
        assert [row.state for row in rows(server.directory, conversation)] == ["done"]
        await reader.arrives(at=chunks)


async def _taken(person: Person, conversation: str) -> bool:
    response = await person.send(conversation, "words=3", id="m-1")
    assert response.status_code in (202, 503), response.text
    return response.status_code == 202


@pytest.mark.parametrize(("death", "seconds"), [("shut", AWAY_SECONDS), ("killed", 0.0)])
async def test_the_service_is_away_for_a_while(
    server: LiveServer, person: Person, elsewhere: service.Service, death: str, seconds: float
) -> None:
    """The answer waits for it, its readers stay where they are, and a send is refused until it is back."""
    conversation, run_id = await asked(person, BRISK)
    idle = await person.begin()
    readers = [DurableReader(person, conversation), SocketReader(person, conversation)]
    async with following(*readers):
        await until(lambda: all(words(20) in reader.text for reader in readers))
        await (
            asyncio.to_thread(elsewhere.gate.shut) if death == "shut" else _killed_between_appends(elsewhere)
        )
        refused = await person.http.get("/api/chat-stream", params={"id": idle, "offset": "-1"})
        assert refused.status_code == 503
        assert float(refused.headers["retry-after"]) >= 0
        assert (await person.send(idle, "words=3", id="m-1")).status_code == 503
        await asyncio.sleep(seconds)
        assert await person.active(conversation) == run_id
        elsewhere.gate.open() if death == "shut" else elsewhere.start()
        chunks = await settled(person, conversation, directory=server.directory)
        assert [row.state for row in rows(server.directory, conversation)] == ["done"]
        assert said(chunks, run_id) == words(150)
        for reader in readers:
            await reader.arrives(at=chunks)
    await until(lambda: _taken(person, idle))
    assert echoes(await settled(person, idle, directory=server.directory)) == ["m-1"]


async def _killed_between_appends(elsewhere: service.Service) -> None:
    """The reference server files a message and its producer apart.

    When it dies between the two, a message that is sent again is another one to it.
    """
    hold = gate.Hold()
    elsewhere.gate.faults.append(("POST", hold))
    await asyncio.wrap_future(hold.arrived)
    elsewhere.kill()
    hold.let_go.set_result(None)


async def test_a_service_that_falls_silent(
    server: LiveServer, person: Person, elsewhere: service.Service
) -> None:
    """An append is not answered, as long as anybody waits for it: 15 s, and then it is sent again."""
    conversation, run_id = await asked(person, BRISK)
    readers = [DurableReader(person, conversation), SocketReader(person, conversation)]
    async with following(*readers):
        await until(lambda: all(words(10) in reader.text for reader in readers))
        elsewhere.gate.faults.append(("POST", gate.silence))
        chunks = await settled(person, conversation, directory=server.directory)
        assert elsewhere.gate.faults == []
        assert [row.state for row in rows(server.directory, conversation)] == ["done"]
        assert said(chunks, run_id) == words(150)
        for reader in readers:
            await reader.arrives(at=chunks)


async def test_a_stream_deleted_behind_the_back_of_a_site_with_readers(
    server: LiveServer, person: Person, elsewhere: service.Service
) -> None:
    conversation, _ = await asked(person, "words=3")
    before = await settled(person, conversation, directory=server.directory)
    _, stale = await person.transcript(conversation)
    readers = [DurableReader(person, conversation), SocketReader(person, conversation)]
    async with following(*readers):
        for reader in readers:
            await reader.arrives(at=before)
        async with aclosing(Pool()) as connections:
            await _client(elsewhere, connections).delete(f"chat-{conversation}")
        assert (await person.send(conversation, "words=4", id="m-2")).status_code == 202
        hydrated = await person.idle(conversation)
        chunks, tail = await person.transcript(conversation)
        assert hydrated["offset"] == tail
        assert [chunk["type"] for chunk in chunks].count("MESSAGES_SNAPSHOT") == 1
        assert echoes(chunks) == ["m-2"]
        assert [message["id"] for message in hydrated["messages"]][::2] == ["m-1", "m-2"]
    late = DurableReader(person, conversation)
    late.offset, late.caught_up = stale, True
    async with following(late):
        await late.arrives(at=chunks)


async def test_connections_are_used_again(
    server: LiveServer, person: Person, elsewhere: service.Service
) -> None:
    conversation = await person.begin()
    for number in range(5):
        assert (await person.send(conversation, "words=20", id=f"m-{number}")).status_code == 202
        await person.idle(conversation)
    asked, opened = len(elsewhere.gate.requests), elsewhere.gate.connections
    assert asked > 20
    assert opened < asked / 3


@pytest.fixture
async def connections() -> AsyncIterator[Pool]:
    async with aclosing(Pool()) as connections:
        yield connections


def _client(elsewhere: service.Service, connections: Pool) -> StreamClient:
    handler = HTTPHandler(
        f"{elsewhere.gate.url}/v1/stream/{elsewhere.id}",
        lambda: connections,
        token=StreamsSecret(elsewhere.secret),
        read_token=StreamsSecret(elsewhere.read_secret),
        patience=Patience(connect=1, write=0.1, read=0.3, live=0.5),
    )
    return StreamClient(Repeating(handler, seconds=10))


EVERY = {**FAULTS, "silence": gate.silence}


@pytest.mark.parametrize("fault", EVERY.values(), ids=EVERY)
async def test_a_producer_loses_and_doubles_nothing(
    elsewhere: service.Service, connections: Pool, fault: Fault
) -> None:
    client = _client(elsewhere, connections)
    await client.create("s")
    for method in ("HEAD", "POST"):
        elsewhere.gate.faults += [(method, fault)] * 2
    async with Producer(client, "s", id="p", epoch=1) as producer:
        for number in range(100):
            await producer.add(number)
        elsewhere.gate.faults += [("POST", fault)] * 2
        offset = await producer.append(["last"])
    elsewhere.gate.faults.clear()
    assert (await client.head("s")).offset == offset
    batch = await client.read("s")
    assert list(batch.items) == [*range(100), "last"]


@pytest.mark.parametrize("after", [0, 40, 300, 700])
async def test_a_reader_goes_on_where_its_answer_broke_off_or_fell_silent(
    elsewhere: service.Service, connections: Pool, after: int
) -> None:
    client = _client(elsewhere, connections)
    await client.create("s")
    for number in range(20):
        await client.append("s", [number])
    elsewhere.gate.faults += [gate.cut(after)] * 2
    seen: list[int] = []
    async with asyncio.timeout(60), aclosing(subscribe(client, "s")) as batches:
        async for batch in batches:
            seen += batch.items
            if batch.up_to_date and len(seen) == 20:
                elsewhere.gate.faults += [("GET", gate.cut(after)), ("GET", gate.silence)]
                await client.append("s", list(range(20, 40)), close=True)
    assert seen == list(range(40))
