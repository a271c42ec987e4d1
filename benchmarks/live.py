"""Live readers over SSE: how soon each chunk reaches all of them, and what one costs that waits."""

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import Final, cast

from benchmarks.client import Connection, connections, request
from benchmarks.loads import create, fresh
from benchmarks.peers import Peer

_STAMP: Final = b'"at":"'
_DIGITS: Final = 20
_SETTLED_SECONDS: Final = 0.5


def ages(data: bytes) -> list[int]:
    """How old each message in a piece of a live answer is, in nanoseconds; not of one that is cut in two."""
    now, found = time.monotonic_ns(), []
    at = data.find(_STAMP)
    while at >= 0:
        digits = data[at + len(_STAMP) : at + len(_STAMP) + _DIGITS]
        if len(digits) == _DIGITS:
            found.append(now - int(digits))
        at = data.find(_STAMP, at + _DIGITS)
    return found


class Listener(asyncio.Protocol):
    """One SSE connection. Of what arrives it notes only how old each message is, in nanoseconds."""

    def __init__(self) -> None:
        self.open = asyncio.get_running_loop().create_future()
        self.ages: list[int] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        if not self.open.done():
            self.open.set_result(None)
        self.ages += ages(data)


@dataclass(frozen=True, slots=True)
class FanOut:
    """``p50`` and ``p99`` in milliseconds, ``cpu`` in seconds a second, ``arrived`` of all that were due."""

    p50: float
    p99: float
    cpu: float
    arrived: float


async def fan_out(
    peer: Peer, *, readers: int, per_second: int, seconds: float, at: Peer | None = None
) -> FanOut:
    """One writer, who appends at that pace, and ``readers`` of that stream, maybe ``at`` another process."""
    path = fresh()
    async with (
        connections(peer.url, Connection, 1) as (writer,),
        connections((at or peer).url, Listener, readers) as listeners,
    ):
        await create(writer, path)
        await _listen(listeners, path)
        await publish(writer, path, per_second=per_second, count=per_second // 2)  # until it is warm
        await asyncio.sleep(_SETTLED_SECONDS)
        for listener in listeners:
            listener.ages.clear()
        before, begin, due = peer.cpu_seconds(), time.perf_counter(), int(per_second * seconds)
        await publish(writer, path, per_second=per_second, count=due)
        cpu = (peer.cpu_seconds() - before) / (time.perf_counter() - begin)
        await asyncio.sleep(_SETTLED_SECONDS)
        old = sorted(age for listener in listeners for age in listener.ages)
    p50, p99 = statistics.median(old) / 1e6, old[int(len(old) * 0.99)] / 1e6
    return FanOut(p50, p99, cpu, len(old) / (due * readers))


async def idle(peer: Peer, *, readers: int) -> tuple[float, int]:
    """KiB of memory that each of so many waiting readers adds to the server, and the threads that all add."""
    path = fresh()
    async with connections(peer.url, Connection, 1) as (writer,):
        await create(writer, path)
        async with connections(peer.url, Listener, 50) as warm:
            await _listen(warm, path)
        await asyncio.sleep(_SETTLED_SECONDS)
        memory, threads = peer.resident_kib(), peer.threads()
        async with connections(peer.url, Listener, readers) as listeners:
            await _listen(listeners, path)
            await asyncio.sleep(_SETTLED_SECONDS)
            return (peer.resident_kib() - memory) / readers, peer.threads() - threads


async def _listen(listeners: list[Listener], path: str) -> None:
    get = request("GET", f"{path}?offset=-1&live=sse")
    for listener in listeners:
        listener.transport.write(get)
    await asyncio.gather(*(listener.open for listener in listeners))


async def publish(writer: Connection, path: str, *, per_second: int, count: int) -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    for turn in range(count):
        await asyncio.sleep(begin + turn / per_second - loop.time())  # the pace is the load
        body = b'{"type":"TEXT_MESSAGE_CONTENT","delta":" the next few words",%s%0*d"}' % (
            _STAMP,
            _DIGITS,
            time.monotonic_ns(),
        )
        await writer.ask(request("POST", path, body))
