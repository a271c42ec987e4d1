"""Connections to elsewhere: one HTTP client per running event loop, database touches off every loop."""

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import ParamSpec, TypeVar

import httpx
from django.db import close_old_connections

P = ParamSpec("P")
T = TypeVar("T")

_clients: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}
_lock = Lock()


def _pool() -> ThreadPoolExecutor:
    # Few on purpose: a touch takes a millisecond, and each thread is a database connection while it lasts.
    return ThreadPoolExecutor(max_workers=4, thread_name_prefix="durable-chat-database")


_threads = _pool()


def http_client() -> httpx.AsyncClient:
    """The running loop's client: a client fails on a second loop, so each loop has its own.

    Clients of loops that have ended are let go here; their sockets went with the loop.
    """
    loop = asyncio.get_running_loop()
    with _lock:
        for ended in [known for known in _clients if known.is_closed()]:
            del _clients[ended]
        if loop not in _clients:
            # No cap: every live read holds a connection for a minute.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
            _clients[loop] = httpx.AsyncClient(limits=limits, follow_redirects=False)
        return _clients[loop]


async def in_database(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a synchronous function that touches the database, and hold no connection afterwards.

    Off the request's thread-sensitive executor, so that what outlives its request (a run, a live read, a
    WebSocket) can use it; in a context of its own, so that nothing of the request leaks into it. Not for what
    waits for the background loop: these few threads are what the loop waits for.
    """
    return await _run(_threads, partial(function, *args, **kwargs))


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same for the host's own functions, which may take their time."""
    return await _run(None, partial(function, *args, **kwargs))


async def _run(threads: ThreadPoolExecutor | None, function: Callable[[], T]) -> T:
    def touch() -> T:
        close_old_connections()
        try:
            return function()
        finally:
            close_old_connections()

    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(threads, contextvars.Context().run, touch)


def _after_fork() -> None:
    """Threads do not survive a fork."""
    global _threads
    _threads = _pool()


os.register_at_fork(after_in_child=_after_fork)
