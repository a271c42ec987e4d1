"""How many answers a process writes at once; further ones wait in line."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

from durable_chat import conf


class Line:
    """So many places; who finds none free gets one in the order of coming. For one event loop."""

    def __init__(self, places: int) -> None:
        self._free = asyncio.Semaphore(places)

    @asynccontextmanager
    async def place(self, *, unless: "asyncio.Future[Any]") -> AsyncIterator[None]:
        """Hold a place, or none if `unless` is resolved before there is one."""
        turn = asyncio.create_task(self._turn())
        await asyncio.wait({turn, unless}, return_when=asyncio.FIRST_COMPLETED)
        turn.cancel()
        await asyncio.wait({turn})
        try:
            yield
        finally:
            if not turn.cancelled():
                self._free.release()

    async def _turn(self) -> None:
        await self._free.acquire()


def current() -> Line:
    """This process's line, as long as MAX_RUNS allows."""
    return _line(conf.get().max_runs)


@lru_cache(maxsize=1)
def _line(places: int) -> Line:
    return Line(places)


os.register_at_fork(after_in_child=_line.cache_clear)
