"""From event loops to the threads that do what a loop may not wait for, and back."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from durable_chat.streams.protocol.errors import TooManyRequests, Unavailable

MOST = 10_000  # jobs that wait; a disk that stalls must not fill the memory

S = TypeVar("S")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, eq=False)
class Job(Generic[S]):
    """Work on what the thread owns, and the future of a loop that waits for its result, if one does."""

    work: Callable[[S], Any]
    future: "asyncio.Future[Any] | None" = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: with a result, or with an error."""

    job: Job[Any]
    result: Any = None
    error: BaseException | None = None


class _Mark(Enum):
    NUDGE = auto()
    END = auto()


class Inbox(Generic[S]):
    """A queue of about ``most`` jobs, filled from any loop or thread, drained by ``workers`` threads."""

    def __init__(self, *, workers: int = 1, most: int = MOST) -> None:
        self._queue: SimpleQueue[Job[S] | _Mark] = SimpleQueue()
        self._most = most
        self._workers = workers
        self._lock = threading.Lock()
        self._closed = False

    async def ask(self, work: Callable[[S], R]) -> R:
        """The result of ``work``. It is done even if the caller is cancelled while it waits.

        Raises ``TooManyRequests`` when more is asked than the workers can do, ``Unavailable`` once closed.
        """
        if self._queue.qsize() >= self._most:
            raise TooManyRequests
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._put(Job(work, future))
        return await future

    def tell(self, work: Callable[[S], Any]) -> None:
        """Have ``work`` done at some time; nobody waits for it."""
        with suppress(Unavailable):
            self._put(Job(work))

    def nudge(self) -> None:
        """End one worker's wait for jobs."""
        self._queue.put(_Mark.NUDGE)

    def take(self, *, timeout: float | None, at_most: int) -> tuple[list[Job[S]], bool]:
        """What is queued, after waiting for the first of it; and whether this worker is to go on."""
        jobs: list[Job[S]] = []
        with suppress(Empty):
            item = self._queue.get(timeout=timeout)
            while isinstance(item, Job):
                jobs.append(item)
                if len(jobs) == at_most:
                    return jobs, True
                item = self._queue.get_nowait()
            return jobs, item is not _Mark.END
        return jobs, True

    def close(self) -> None:
        """Take no more jobs; what is queued is still done. Once closed, closing does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for _ in range(self._workers):
                self._queue.put(_Mark.END)

    def _put(self, job: Job[S]) -> None:
        with self._lock:  # or a job could land behind the mark that ends the workers, and wait for ever
            if self._closed:
                raise Unavailable("The store is closed.")
            self._queue.put(job)


class Crew:
    """A store's threads and the inboxes they drain: started by the first call that needs them, ended once."""

    def __init__(self, inboxes: Sequence[Inbox[Any]], threads: Sequence[threading.Thread]) -> None:
        self._inboxes = inboxes
        self._threads = threads
        self._lock = threading.Lock()
        self._started = False

    def start(self) -> None:
        """Once they run, this costs nothing."""
        if self._started:
            return
        with self._lock:
            if not self._started:
                for thread in self._threads:
                    thread.start()
                self._started = True

    def close(self) -> None:
        """End the threads, after what was asked of them before."""
        with self._lock:
            for inbox in self._inboxes:
                inbox.close()
            if self._started:
                for thread in self._threads:
                    thread.join()


def settle(outcomes: list[Outcome]) -> None:
    """Hand each outcome to the loop that waits for it, with one call a loop."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.job.future is not None:
            by_loop[outcome.job.future.get_loop()].append(outcome)
    for loop, settled in by_loop.items():
        with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            loop.call_soon_threadsafe(_settle_here, settled)


def _settle_here(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        future = outcome.job.future
        if future is None or future.done():
            continue  # cancelled meanwhile
        if outcome.error is not None:
            future.set_exception(outcome.error)
        else:
            future.set_result(outcome.result)
