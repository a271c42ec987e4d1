"""What could carry requests to a streams service, side by side: ``python -m benchmarks.transports``.

The service is the reference server in memory, on a core of its own; what is measured has the other.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from typing import Final, TypeAlias

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from benchmarks import live, loads, peers
from benchmarks.client import Connection, connections
from benchmarks.loops import run
from benchmarks.peers import Peer
from durable_chat.streams.client.http import HTTPHandler
from durable_chat.streams.client.over_httpx import OverHTTPX
from durable_chat.streams.client.pool import Pool
from durable_chat.streams.client.transport import Transport
from durable_chat.streams.protocol.exchange import Request

Get: TypeAlias = Callable[[str], AbstractAsyncContextManager[AsyncIterator[bytes]]]
"""Opens a target of the service; its body in pieces."""

ROUNDS: Final = 3
SECONDS: Final = 2.0
AT_ONCE: Final = 32
READERS: Final = 200
PACE: Final = 50


def over_httpx(client: httpx.AsyncClient, peer: Peer) -> Get:
    @asynccontextmanager
    async def get(target: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with client.stream("GET", peer.url + target, timeout=75) as response:
            yield response.aiter_bytes()

    return get


def over_aiohttp(session: aiohttp.ClientSession, peer: Peer) -> Get:
    @asynccontextmanager
    async def get(target: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with session.get(peer.url + target, timeout=aiohttp.ClientTimeout(sock_read=75)) as response:
            yield response.content.iter_any()

    return get


def over_handler(transport: Transport, peer: Peer) -> Get:
    handler = HTTPHandler(f"{peer.url}/v1/stream", lambda: transport)

    @asynccontextmanager
    async def get(target: str) -> AsyncIterator[AsyncIterator[bytes]]:
        path, _, query = target.removeprefix("/v1/stream/").partition("?")
        parameters = dict(pair.split("=") for pair in query.split("&"))
        async with await handler(Request("GET", path, parameters)) as response:
            yield _whole(response.body) if isinstance(response.body, bytes) else aiter(response.body)

    return get


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())


def _httpx() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(limits=limits, trust_env=False)


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _httpx_on_aiohttp() -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=AiohttpTransport(client=_session), trust_env=False)


def _on_aiohttp() -> AbstractAsyncContextManager[Transport]:
    return aclosing(OverHTTPX(AiohttpTransport(client=_session)))


def _pool() -> AbstractAsyncContextManager[Transport]:
    return aclosing(Pool())


TRANSPORTS: Final[dict[str, tuple[Callable[[], AbstractAsyncContextManager], Callable[..., Get]]]] = {
    "httpx, its own transport, sniffio": (_httpx, over_httpx),
    "httpx on aiohttp (httpx-aiohttp)": (_httpx_on_aiohttp, over_httpx),
    "HTTPHandler, on aiohttp without its client": (_on_aiohttp, over_handler),
    "aiohttp": (_session, over_aiohttp),
    "HTTPHandler, its own pool": (_pool, over_handler),
}


async def small_reads(get: Get, target: str) -> tuple[float, float]:
    """Reads a second of ten messages, ``AT_ONCE`` at a time, and the microseconds of CPU that each takes."""
    before, until = time.process_time(), time.perf_counter() + SECONDS

    async def read() -> int:
        done = 0
        while time.perf_counter() < until:
            async with get(target) as pieces:
                async for _ in pieces:
                    pass
            done += 1
        return done

    done = sum(await asyncio.gather(*(read() for _ in range(AT_ONCE))))
    return done / SECONDS, 1e6 * (time.process_time() - before) / done


async def live_reads(get: Get, peer: Peer) -> tuple[float, float]:
    """Milliseconds until a message is at the median of ``READERS``, and percent of a core that they take."""
    path, ages = loads.fresh(), list[int]()
    async with connections(peer.url, Connection, 1) as (writer,), AsyncExitStack() as stack:
        await loads.create(writer, path)
        target = f"{path}?offset=-1&live=sse"
        bodies = [await stack.enter_async_context(get(target)) for _ in range(READERS)]
        tasks = [asyncio.create_task(_listen(body, ages)) for body in bodies]
        began, before = time.perf_counter(), time.process_time()
        await live.publish(writer, path, per_second=PACE, count=int(PACE * SECONDS))
        cpu = (time.process_time() - before) / (time.perf_counter() - began)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return statistics.median(ages) / 1e6, 100 * cpu


async def _listen(body: AsyncIterator[bytes], ages: list[int]) -> None:
    async for piece in body:
        ages += live.ages(piece)


async def main() -> None:
    peers.pin_generator()
    print(f"{'':44}{'small reads/s':>15}{'CPU, µs':>9}{'200 SSE p50, ms':>18}{'CPU, %':>8}")
    with peers.node() as peer:
        async with connections(peer.url, Connection, 1) as (writer,):
            target = await loads.near_tail(writer, loads.fresh(), before=90)
        raw = await loads.small_reads(peer, readers=AT_ONCE, seconds=SECONDS)
        print(f"{'the load generator, raw':44}{raw:>15.0f}")
        for name, (opened, over) in TRANSPORTS.items():
            rounds = []
            for _ in range(ROUNDS):
                async with opened() as client:
                    get = over(client, peer)
                    rounds.append((*await small_reads(get, target), *await live_reads(get, peer)))
            reads, each, p50, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
            print(f"{name:44}{reads:>15.0f}{each:>9.0f}{p50:>18.1f}{cpu:>8.0f}")


if __name__ == "__main__":
    run(main())
