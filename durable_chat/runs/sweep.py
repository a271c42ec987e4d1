"""What each process looks for while it lives: runs whose process died, lines that stand, old streams."""

import asyncio
import logging
import os
import random
import time
from dataclasses import dataclass
from threading import Lock
from typing import Final

from django.db import DatabaseError

from durable_chat import conf
from durable_chat.connections import in_database
from durable_chat.exceptions import Unavailable
from durable_chat.runs import launch, loop, tombs
from durable_chat.runs.rows import unattended
from durable_chat.streams.protocol.errors import StreamError

log = logging.getLogger(__name__)

AT_ONCE: Final = 10  # conversations that one sweep attends to side by side
FOUND: Final = 200  # and in all; the next sweep goes on
ERASE_SECONDS: Final = 30.0
LONGEST_PAUSE: Final = 10.0  # between sweeps that fail

_lock = Lock()
_started = False
_sweeping: "asyncio.Task[None] | None" = None


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did: ids of runs that it ended and began, and whether it could do all that it found."""

    recovered: tuple[str, ...]
    begun: tuple[str, ...]
    complete: bool


def start() -> None:
    """Sweep from now on, in this process and until it ends; SWEEP_SECONDS = 0 says that others do.

    Costs nothing after the first call. Called by what serves conversations, never by an import.
    """
    global _started
    if _started or not conf.get().sweep_seconds:
        return
    with _lock:
        if not _started:
            _started = True
            loop.submit(_sweep_on)


async def stop() -> None:
    """Sweep no more, until the next `start`. On the background loop."""
    global _started
    if _sweeping is not None:
        _sweeping.cancel()
        await asyncio.wait({_sweeping})
    _started = False


async def sweep() -> Swept:
    """Attend to what nobody attends to, once. On the background loop. Raises DatabaseError."""
    found = await in_database(_unattended)
    random.shuffle(found)  # other processes found the same
    places = asyncio.Semaphore(AT_ONCE)
    tended = await asyncio.gather(*(_tend(conversation_id, places) for conversation_id in found))
    done = [each for each in tended if each is not None]
    return Swept(
        recovered=tuple(each.recovered for each in done if each.recovered),
        begun=tuple(each.begun for each in done if each.begun),
        complete=len(done) == len(found),
    )


def _unattended() -> list[str]:
    return list(unattended().order_by().values_list("conversation", flat=True).distinct()[:FOUND])


async def _tend(conversation_id: str, places: asyncio.Semaphore) -> launch.Tended | None:
    async with places:
        try:
            return await launch.tend(conversation_id)
        except (Unavailable, DatabaseError) as error:
            log.warning("conversation %s must wait: %s", conversation_id, type(error).__name__)
            return None


async def _sweep_on() -> None:
    global _sweeping
    _sweeping = asyncio.current_task()
    pause = period = conf.get().sweep_seconds
    erased = -ERASE_SECONDS
    while True:
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - so that processes take turns
        try:
            swept = await sweep()
            if time.monotonic() - erased > ERASE_SECONDS:
                erased = time.monotonic()
                await tombs.erase()
        except (DatabaseError, StreamError) as error:
            log.warning("a sweep failed: %s", type(error).__name__)
            complete = False
        except Exception:
            log.exception("a sweep broke")
            complete = False
        else:
            complete = swept.complete
        pause = period if complete else min(2 * pause, LONGEST_PAUSE)


def _after_fork() -> None:
    """The parent's sweep is not the child's."""
    global _started, _sweeping
    _started, _sweeping = False, None


os.register_at_fork(after_in_child=_after_fork)
