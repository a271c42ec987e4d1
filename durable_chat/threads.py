"""The few threads that touch the database. Each keeps its connections for a moment, for the next touch."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import ParamSpec, TypeAlias, TypeVar

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

P = ParamSpec("P")
T = TypeVar("T")

Job: TypeAlias = Callable[[], None]

KEPT_SECONDS = 2.0  # an idle connection: longer than a heart pauses


class DatabaseThreads(Executor):
    """So many at most, begun as they are needed; none of them keeps a process from its end.

    To open a connection costs more than most of what is done with it, and a send touches the database several
    times within milliseconds. So a connection outlives its touch, whatever CONN_MAX_AGE says: until nothing
    has come for a while, or it answers no more, which is asked of it before each touch.
    """

    def __init__(self, at_most: int, *, name: str) -> None:
        self._at_most = at_most
        self._name = name
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            self._jobs.put(partial(_do, future, partial(function, *args, **kwargs)))
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._at_most:
                self._begin()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads and their connections, once what is queued is done. The next begins others."""
        with self._lock:
            threads, self._threads = self._threads, []
            jobs, self._jobs = self._jobs, SimpleQueue()
            self._idle = threading.Semaphore(0)
        for _ in threads:
            jobs.put(None)
        for thread in threads:
            thread.join()

    def _begin(self) -> None:
        thread = threading.Thread(
            target=_work, args=(self._jobs, self._idle), name=f"durable-chat-{self._name}", daemon=True
        )
        thread.start()
        self._threads.append(thread)


def _work(jobs: "SimpleQueue[Job | None]", idle: threading.Semaphore) -> None:
    while (job := _next(jobs, idle)) is not None:
        job()
    connections.close_all()


def _next(jobs: "SimpleQueue[Job | None]", idle: threading.Semaphore) -> Job | None:
    with suppress(Empty):
        return jobs.get_nowait()
    idle.release()
    if any(connection.connection is not None for connection in connections.all(initialized_only=True)):
        with suppress(Empty):
            return jobs.get(timeout=KEPT_SECONDS)
        connections.close_all()
    return jobs.get()


def _do(future: Future[T], function: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = _touch(function)
    except BaseException as error:  # noqa: BLE001 - handed to the caller
        future.set_exception(error)
    else:
        future.set_result(result)


def _touch(function: Callable[[], T]) -> T:
    try:
        return function()
    finally:
        for connection in connections.all(initialized_only=True):
            _keep(connection)


def _keep(connection: BaseDatabaseWrapper) -> None:
    """For the next touch, unless something went wrong with it or others wait for it, as in a pool."""
    if connection.errors_occurred or connection.settings_dict["OPTIONS"].get("pool"):
        connection.close()
    connection.close_at = None
    connection.health_check_enabled = True  # type: ignore[attr-defined]  # which the stubs do not know
    connection.close_if_unusable_or_obsolete()
