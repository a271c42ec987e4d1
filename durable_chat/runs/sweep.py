"""What each process looks for while it lives: runs whose process died, lines that stand, old streams."""

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Collection, Sequence
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
LONGEST_PAUSE: Final = 10.0  # between sweeps that fail, and for a conversation that cannot be attended to

_lock = Lock()
_started = False
_sweeping: "asyncio.Task[None] | None" = None


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did: ids of runs that it ended and began, and of conversations that must wait."""

    recovered: tuple[str, ...]
    begun: tuple[str, ...]
    failed: tuple[str, ...]


class Patience:
    """Conversations that could not be attended to: each is left alone for a while, longer each time.

    They hold nobody else up. Only this process's hint to itself: any other may try meanwhile.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._first = seconds
        self._clock = clock
        self._until: dict[str, tuple[float, float]] = {}  # the moment, and how long the pause was

    def resting(self) -> list[str]:
        """Those to be left alone now."""
        return [name for name, (moment, _) in self._until.items() if moment > self._clock()]

    def note(self, failed: Sequence[str]) -> None:
        """After a sweep of all but the resting ones: these have failed, the others have not."""
        resting = {name: self._until[name] for name in self.resting()}
        pauses = {name: self._pause(name) for name in failed}
        self._until = resting | {name: (self._clock() + pause, pause) for name, pause in pauses.items()}

    def _pause(self, name: str) -> float:
        return min(2 * self._until[name][1], LONGEST_PAUSE) if name in self._until else self._first


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


async def sweep(*, but: Collection[str] = ()) -> Swept:
    """Attend to what nobody attends to, once, but for these conversations. On the background loop.

    Raises DatabaseError.
    """
    found = await in_database(_unattended, but)
    random.shuffle(found)  # other processes found the same
    places = asyncio.Semaphore(AT_ONCE)
    tended = await asyncio.gather(*(_tend(conversation_id, places) for conversation_id in found))
    done = [each for each in tended if each is not None]
    failed = [name for name, each in zip(found, tended, strict=True) if each is None]
    return Swept(
        recovered=tuple(each.recovered for each in done if each.recovered),
        begun=tuple(each.begun for each in done if each.begun),
        failed=tuple(failed),
    )


def _unattended(but: Collection[str]) -> list[str]:
    waiting = unattended().exclude(conversation__in=but).order_by()
    return list(waiting.values_list("conversation", flat=True).distinct()[:FOUND])


async def _tend(conversation_id: str, places: asyncio.Semaphore) -> launch.Tended | None:
    async with places:
        try:
            return await launch.tend(conversation_id)
        except (Unavailable, DatabaseError) as error:
            log.warning("conversation %s must wait: %s", conversation_id, type(error).__name__)
        except Exception:
            log.exception("conversation %s cannot be attended to", conversation_id)
        return None


async def _sweep_on() -> None:
    global _sweeping
    _sweeping = asyncio.current_task()
    pause = period = conf.get().sweep_seconds
    patience = Patience(period)
    erased = -ERASE_SECONDS
    while True:
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - so that processes take turns
        try:
            swept = await sweep(but=patience.resting())
            patience.note(swept.failed)
            if time.monotonic() - erased > ERASE_SECONDS:
                erased = time.monotonic()
                await tombs.erase()
        except (DatabaseError, StreamError) as error:
            log.warning("a sweep failed: %s", type(error).__name__)
            pause = min(2 * pause, LONGEST_PAUSE)
        except Exception:
            log.exception("a sweep broke")
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            pause = period


def _after_fork() -> None:
    """The parent's sweep is not the child's."""
    global _started, _sweeping
    _started, _sweeping = False, None


os.register_at_fork(after_in_child=_after_fork)
