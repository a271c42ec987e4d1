"""Waiting for other people's coroutines no longer than agreed: they may ignore their cancellation."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)

_strays: set[asyncio.Task[Any]] = set()  # the loop itself keeps no task


async def within(seconds: float, coroutine: Coroutine[Any, Any, T]) -> T:
    """What the coroutine returns or raises; TimeoutError when it does neither in time."""
    task = asyncio.create_task(coroutine)
    await asyncio.wait({task}, timeout=seconds)
    if not task.done():
        task.cancel()
        _leave(task)
        raise TimeoutError
    return task.result()


async def end(task: "asyncio.Task[Any]", *, seconds: float) -> bool:
    """Cancel a task; whether it ended in time. One that did not is left to itself."""
    task.cancel()
    await asyncio.wait({task}, timeout=seconds)
    if not task.done():
        log.warning("%s ignores its cancellation", task.get_name())
        _leave(task)
    return task.done()


def _leave(task: "asyncio.Task[Any]") -> None:
    _strays.add(task)
    task.add_done_callback(_forget)


def _forget(task: "asyncio.Task[Any]") -> None:
    _strays.discard(task)
    if not task.cancelled():
        task.exception()  # nobody waits for it any more
