"""An ordinary Django write, in the process that serves the streams, beside 32 writers of streams."""

import asyncio
import time
from pathlib import Path

from benchmarks.client import Connection, connections, request
from benchmarks.loads import appends
from benchmarks.peers import embedded


async def orm_writes(directory: Path, *, writers: int, seconds: float) -> tuple[float, float, float]:
    """p50 and p99 of the whole request in milliseconds, and the appends a second meanwhile."""
    with embedded(directory / "beside.sqlite3", host=directory / "host.sqlite3") as peer:
        async with connections(peer.url, Connection, 1) as (one,):
            await one.ask(request("POST", "/write"))  # the first one sets Django up
            load = asyncio.create_task(appends(peer, writers=writers, seconds=seconds))
            taken: list[float] = []
            while not load.done():
                begin = time.perf_counter()
                await one.ask(request("POST", "/write"))
                taken.append((time.perf_counter() - begin) * 1e3)
            taken.sort()
            return taken[len(taken) // 2], taken[int(len(taken) * 0.99)], await load
