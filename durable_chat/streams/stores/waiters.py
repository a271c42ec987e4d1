"""Who waits for what, in any number of event loops and threads at once."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeAlias

Woken: TypeAlias = "asyncio.Future[None]"


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    position: int
    loop: asyncio.AbstractEventLoop
    woken: Woken


class Waiters:
    """Readers at the tail, by path. Whoever moves a tail wakes those that it has passed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: defaultdict[str, set[_Waiter]] = defaultdict(set)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def paths(self) -> list[str]:
        """The paths that somebody waits at."""
        with self._lock:
            return list(self._waiting)

    @contextmanager
    def at(self, path: str, position: int) -> Iterator[Woken]:
        """A future of the running loop, done as soon as ``wake`` says that the tail passed ``position``."""
        loop = asyncio.get_running_loop()
        waiter = _Waiter(position, loop, loop.create_future())
        with self._lock:
            self._waiting[path].add(waiter)
        try:
            yield waiter.woken
        finally:
            with self._lock:
                self._forget(path, waiter)

    def wake(self, path: str, tail: int | None) -> None:
        """Wake the waiters behind ``tail``; ``None`` when the stream is closed or gone, which wakes all."""
        if path not in self._waiting:  # whoever comes now looks for the tail first
            return
        with self._lock:
            passed = [w for w in self._waiting.get(path, ()) if tail is None or tail > w.position]
        by_loop: defaultdict[asyncio.AbstractEventLoop, list[Woken]] = defaultdict(list)
        for waiter in passed:
            by_loop[waiter.loop].append(waiter.woken)
        for loop, futures in by_loop.items():
            with suppress(RuntimeError):  # the loop has been closed, and its waiters with it
                loop.call_soon_threadsafe(_set_all, futures)

    def wake_all(self) -> None:
        """Wake everybody: nothing will come any more."""
        for path in self.paths():
            self.wake(path, None)

    def _forget(self, path: str, waiter: _Waiter) -> None:
        here = self._waiting[path]
        here.discard(waiter)
        if not here:
            del self._waiting[path]


def _set_all(futures: list[Woken]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
