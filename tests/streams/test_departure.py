"""The end of a process: who reads live is let go, on whatever loop, and not before a client bears it."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from durable_chat.streams import departure as module
from durable_chat.streams import hub, live
from durable_chat.streams.departure import Departure
from durable_chat.streams.protocol.exchange import Request, Response
from durable_chat.streams.server import StreamServer
from durable_chat.streams.stores.memory import MemoryStore
from tests.faults.people import PATIENCE_SECONDS, until


@pytest.fixture
def leaving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Departure]:
    """A departure that ends nothing but this test's reads."""
    fresh = Departure()
    for place in (module, hub, live):
        monkeypatch.setattr(place, "departure", fresh)
    monkeypatch.setattr(live, "KEEP_ALIVE_SECONDS", 3600)  # nothing but the departure ends a wait
    yield fresh
    assert not fresh.readers


async def served() -> StreamServer:
    server = StreamServer(MemoryStore(), sse_seconds=3600, long_poll_seconds=3600)
    await server.handle(Request("PUT", "s", {}, {"content-type": "text/plain"}))
    return server


async def reads(server: StreamServer, how: str) -> Response:
    return await server.handle(Request("GET", "s", {"offset": "-1", "live": how}))


async def events(response: Response) -> bytes:
    async with response:
        return b"".join([piece async for piece in response.body])


async def test_every_kind_of_live_read_ends_early(leaving: Departure) -> None:
    server = await served()
    began = time.monotonic()
    sse = [asyncio.create_task(events(await reads(server, "sse"))) for _ in range(3)]
    poll = asyncio.create_task(reads(server, "long-poll"))
    told = asyncio.create_task(leaving.comes())
    await until(lambda: len(leaving.readers) == 4)
    await asyncio.to_thread(leaving.leave)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await poll).status == 204
        await told
        for each in sse:
            assert (await each).count(b"event: control") == 2  # where to go on, and at the end once more
    assert time.monotonic() - began > 1.1


async def test_who_comes_now_may_stay_no_longer_than_a_client_needs(leaving: Departure) -> None:
    server = await served()
    await asyncio.to_thread(leaving.leave)
    began = time.monotonic()
    assert (await events(await reads(server, "sse"))).count(b"event: control") == 2
    assert time.monotonic() - began > 1.1
    await leaving.comes()


async def test_readers_of_every_loop_are_let_go(leaving: Departure) -> None:
    server = await served()

    def elsewhere() -> None:
        async def read() -> bytes:
            return await events(await reads(server, "sse"))

        assert b"upToDate" in asyncio.run(read())

    threads = [threading.Thread(target=elsewhere) for _ in range(2)]
    for thread in threads:
        thread.start()
    await until(lambda: len(leaving.readers) == 2)
    await asyncio.to_thread(leaving.leave)
    for thread in threads:
        await asyncio.to_thread(thread.join)


async def test_what_is_under_way_is_wound_up_before_readers_go(leaving: Departure) -> None:
    seen = []

    def broken() -> None:
        raise ValueError

    leaving.first(broken)
    leaving.first(lambda: seen.append(leaving.closing))
    await asyncio.to_thread(leaving.leave)
    assert seen == [False]
    assert leaving.closing


def test_off_the_main_thread_nothing_is_installed() -> None:
    fresh = Departure()
    thread = threading.Thread(target=fresh.watch)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) != fresh._signalled


PROCESS = """
import os, signal, sys, time
from durable_chat.streams.departure import departure

def before(number, frame):
    print("before", departure.closing, flush=True)
    sys.exit(3)

{install}
departure.first(lambda: print("wound up", flush=True))
departure.watch()
departure.watch()
if {forked} and os.fork():
    os.wait()
    sys.exit(0)
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGTERM)
while True:
    time.sleep(0.1)
"""


@pytest.mark.parametrize(
    ("install", "forked", "said", "status"),
    [
        ("signal.signal(signal.SIGTERM, before)", False, ["ready", "wound up", "before True"], 3),
        ("signal.signal(signal.SIGTERM, before)", True, ["ready", "before False"], 0),
        ("", False, ["ready", "wound up"], -signal.SIGTERM),
    ],
)
def test_the_handler_that_was_there_has_the_last_word(
    install: str, forked: bool, said: list[str], status: int
) -> None:
    script = PROCESS.format(install=install, forked=forked)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[:-1] == said, done.stderr
    assert done.returncode == status
