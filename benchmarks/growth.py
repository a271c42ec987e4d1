"""Whether size costs: the same request to a small and to a large one, by turns, so that noise hits both."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.client import Connection, connections, request
from benchmarks.loads import CHUNK, create, fresh, near_tail, ten_more
from benchmarks.peers import embedded
from durable_chat.streams.stores.base import Append, Batch, NewStream
from durable_chat.streams.stores.sqlite import SQLiteStore

_JSON: Final = "application/json"
_AT_ONCE: Final = 256
_SMALL: Final = 10
_LONG: Final = "long"


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one request, in microseconds, the median: at the small size and at the large one."""

    small: float
    large: float


async def messages(directory: Path, count: int, *, turns: int) -> tuple[Cost, Cost]:
    """An append, and a read at the tail, in streams of ten and of ``count`` messages."""
    file = directory / "messages.sqlite3"
    await _grow(file, messages=count)
    with embedded(file) as peer:
        async with connections(peer.url, Connection, 1) as (one,):
            path = fresh()
            await create(one, path)
            long = f"/v1/stream/{_LONG}"
            small_read, large_read = await ten_more(one, path), await ten_more(one, long)
            # The reads first: what is appended would be read too.
            read = await _by_turns(_asking(one, "GET", small_read), _asking(one, "GET", large_read), turns)
            return await _by_turns(_asking(one, "POST", path), _asking(one, "POST", long), turns), read


async def streams(directory: Path, count: int, *, turns: int) -> tuple[Cost, Cost]:
    """An append, and a read at the tail, in databases of ten and of ``count`` streams."""
    files = directory / "few.sqlite3", directory / "many.sqlite3"
    await _grow(files[0], streams=_SMALL)
    await _grow(files[1], streams=count)
    with ExitStack() as running:
        peers = [running.enter_context(embedded(file)) for file in files]
        async with AsyncExitStack() as stack:
            few, many = [
                (await stack.enter_async_context(connections(peer.url, Connection, 1)))[0] for peer in peers
            ]
            path = fresh()
            reads = [await near_tail(one, path, before=1) for one in (few, many)]
            read = await _by_turns(_asking(few, "GET", reads[0]), _asking(many, "GET", reads[1]), turns)
            return await _by_turns(_asking(few, "POST", path), _asking(many, "POST", path), turns), read


async def _grow(file: Path, *, messages: int = 0, streams: int = 0) -> None:
    store = SQLiteStore(file, synchronous="NORMAL")  # nobody measures this part
    append = Append(Batch(CHUNK, 1), _JSON)
    await store.create(_LONG, NewStream(_JSON))
    await _many(lambda _: store.append(_LONG, append), messages)
    await _many(lambda n: store.create(f"stream-{n}", NewStream(_JSON, batch=Batch(CHUNK, 1))), streams)
    await store.aclose()


async def _many(act: Callable[[int], Awaitable[object]], count: int) -> None:
    for begin in range(0, count, _AT_ONCE):
        await asyncio.gather(*map(act, range(begin, min(count, begin + _AT_ONCE))))


def _asking(connection: Connection, method: str, path: str) -> Callable[[], Awaitable[object]]:
    what = request(method, path, CHUNK if method == "POST" else b"")
    return lambda: connection.ask(what)


async def _by_turns(
    small: Callable[[], Awaitable[object]], large: Callable[[], Awaitable[object]], turns: int
) -> Cost:
    costs: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns):
        for act, cost in zip((small, large), costs, strict=True):
            begin = time.perf_counter()
            await act()
            cost.append((time.perf_counter() - begin) * 1e6)
    return Cost(*map(statistics.median, costs))
