"""SIGTERM, best effort: wind up what is under way, let live readers go, then end as without this."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from types import FrameType
from typing import Any, Final, Protocol
from weakref import WeakSet

log = logging.getLogger(__name__)

# A client that loses connections within a second of opening them gives the stream up for good.
SHORTEST_SECONDS: Final = 1.1
_TICK_SECONDS: Final = 0.05


class Guest(Protocol):
    """Who is told when live reads must end."""

    def let_go(self) -> None:
        """From any thread."""


class Departure:
    """The end of this process, as far as it is known beforehand.

    From ``begun`` on nothing new is taken on; from ``closing`` on live reads last no longer than they must,
    so that their readers go on elsewhere.
    """

    def __init__(self) -> None:
        self.begun = False
        self.closing = False
        self.readers: set[object] = set()  # who reads live now: they come and go by themselves
        self._guests: WeakSet[Guest] = WeakSet()
        self._lock = threading.Lock()
        self._wind_up: list[Callable[[], None]] = []
        self._signals: SimpleQueue[int] = SimpleQueue()
        self._before: Any = None

    def first(self, wind_up: Callable[[], None]) -> None:
        """Call this, which may block for a while, between ``begun`` and ``closing``."""
        self._wind_up.append(wind_up)

    def tell(self, guest: Guest) -> None:
        """Let a guest know when live reads must end; it is forgotten with its last reference."""
        with self._lock:
            self._guests.add(guest)
        if self.closing:
            guest.let_go()

    async def comes(self) -> None:
        """Wait, on any loop, until live reads must end."""
        waiting = _Waiting()
        self.tell(waiting)
        await waiting.told

    def watch(self) -> None:
        """Await SIGTERM, from the main thread's first call on; elsewhere a call does nothing.

        Not at import: servers install their own handlers when they start, and this one goes before theirs.
        """
        if self._before is not None or threading.current_thread() is not threading.main_thread():
            return
        before = signal.getsignal(signal.SIGTERM)
        if before is None:
            return  # it is no handler of Python's, and could not be called afterwards
        threading.Thread(target=self._await, name="durable-chat-departure", daemon=True).start()
        self._before = before
        signal.signal(signal.SIGTERM, self._signalled)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        """The first time begin to leave; the second, which is our own or of somebody in a hurry, end."""
        if not self.begun:
            self.begun = True
            self._signals.put(number)  # of what wakes a thread, this alone may be used within a handler
            return
        signal.signal(number, self._before)
        if callable(self._before):
            self._before(number, frame)
        else:
            signal.raise_signal(number)

    def _await(self) -> None:
        number = self._signals.get()
        try:
            self.leave()
        finally:
            signal.pthread_kill(threading.main_thread().ident or 0, number)

    def leave(self) -> None:
        """Wind up, then let every reader go; returns when those that read then have left."""
        for wind_up in self._wind_up:
            try:
                wind_up()
            except Exception:
                log.exception("%s failed", wind_up)
        self.closing = True
        with self._lock:
            guests = list(self._guests)
        for guest in guests:
            guest.let_go()
        self._see_off(time.monotonic() + SHORTEST_SECONDS)

    def _see_off(self, deadline: float) -> None:
        """Until nobody reads any more, as some servers end at once; who comes meanwhile is not waited for."""
        while self.readers and time.monotonic() < deadline:
            time.sleep(_TICK_SECONDS)
        time.sleep(_TICK_SECONDS)  # for the last words of those who have just left

    def forked(self) -> None:
        """The thread that waits for the signal is the parent's: a child ends as without this."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        self.begun = self.closing = False
        self._before, self._signals, self._lock = None, SimpleQueue(), threading.Lock()


class _Waiting:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.told: asyncio.Future[None] = self._loop.create_future()

    def let_go(self) -> None:
        with suppress(RuntimeError):  # its loop has ended
            self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if not self.told.done():
            self.told.set_result(None)


departure: Final = Departure()
os.register_at_fork(after_in_child=departure.forked)
