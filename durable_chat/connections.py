"""Connections to elsewhere: one HTTP session per running event loop, database touches off every loop."""

import asyncio
import contextvars
import os
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import ParamSpec, TypeVar

import aiohttp
from django.db import close_old_connections

P = ParamSpec("P")
T = TypeVar("T")

# Each with what closes it.
_sessions: dict[asyncio.AbstractEventLoop, tuple[aiohttp.ClientSession, AsyncGenerator[None, None]]] = {}
_lock = Lock()

KEPT_SECONDS = 4.0  # an idle connection; servers hang up on theirs after five or more


def _pool() -> ThreadPoolExecutor:
    # Few on purpose: a touch takes a millisecond, and each thread is a database connection while it lasts.
    return ThreadPoolExecutor(max_workers=4, thread_name_prefix="durable-chat-database")


_threads = _pool()


def http_session() -> aiohttp.ClientSession:
    """The running loop's session: one fails on a second loop, so each loop has its own.

    It is closed with its loop, if that is shut down in order as `asyncio.run` and `async_to_sync` do.
    """
    loop = asyncio.get_running_loop()
    with _lock:
        for ended in [known for known in _sessions if known.is_closed()]:
            del _sessions[ended]
        if loop not in _sessions:
            _sessions[loop] = _opened()
        return _sessions[loop][0]


def _opened() -> tuple[aiohttp.ClientSession, AsyncGenerator[None, None]]:
    # No cap: every live read holds a connection for a minute.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_SECONDS)
    session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
    closing = _closing(session)
    with suppress(StopIteration):
        closing.__anext__().send(None)  # as far as its yield, without a wait
    return session, closing


async def _closing(session: aiohttp.ClientSession) -> AsyncGenerator[None, None]:
    """Loops have one hook for their end: they close the generators that were begun on them."""
    async with session:
        yield


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
