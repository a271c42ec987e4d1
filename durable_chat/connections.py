"""Connections to elsewhere: one HTTP transport per running event loop, database touches off every loop."""

import asyncio
import contextvars
import os
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from contextlib import aclosing, suppress
from functools import partial
from threading import Lock
from typing import ParamSpec, TypeVar
from urllib.request import getproxies

import aiohttp
from django.db import close_old_connections
from httpx_aiohttp import AiohttpTransport

from durable_chat.streams.client.over_httpx import OverHTTPX
from durable_chat.streams.client.pool import KEPT_SECONDS, Pool
from durable_chat.streams.client.transport import Transport
from durable_chat.threads import DatabaseThreads

P = ParamSpec("P")
T = TypeVar("T")

# Each with what closes it.
_transports: dict[asyncio.AbstractEventLoop, tuple[Transport, AsyncGenerator[None, None]]] = {}
_lock = Lock()


def _threads() -> tuple[DatabaseThreads, DatabaseThreads]:
    # Few on purpose: a touch takes a millisecond, and each thread may be a database connection.
    return DatabaseThreads(4, name="database"), DatabaseThreads(1, name="heart")


_database, _heart = _threads()


def http_transport() -> Transport:
    """The running loop's transport: one fails on a second loop, so each loop has its own.

    It is closed with its loop, if that is shut down in order as `asyncio.run` and `async_to_sync` do.
    """
    loop = asyncio.get_running_loop()
    with _lock:
        for ended in [known for known in _transports if known.is_closed()]:
            del _transports[ended]
        if loop not in _transports:
            _transports[loop] = _opened()
        return _transports[loop][0]


def _opened() -> tuple[Transport, AsyncGenerator[None, None]]:
    transport = _through_proxies() if getproxies() else Pool()
    closing = _closing(transport)
    with suppress(StopIteration):
        closing.__anext__().send(None)  # as far as its yield, without a wait
    return transport, closing


def _through_proxies() -> Transport:
    """Those that the environment names."""
    # No cap: every live read holds a connection for a minute. The session brings its own TLS.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_SECONDS)
    session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=True)
    return OverHTTPX(AiohttpTransport(client=session, verify=False))


async def _closing(transport: Transport) -> AsyncGenerator[None, None]:
    """Loops have one hook for their end: they close the generators that were begun on them."""
    async with aclosing(transport):
        yield


async def in_database(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a synchronous function that touches the database.

    Off the request's thread-sensitive executor, so that what outlives its request (a run, a live read, a
    WebSocket) can use it; in a context of its own, so that nothing of the request leaks into it. Not for what
    waits for the background loop: these few threads are what the loop waits for.
    """
    return await _run(_database, partial(function, *args, **kwargs))


async def promptly(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same on a thread of its own, for what keeps leases: it must not stand in line behind the rest."""
    return await _run(_heart, partial(function, *args, **kwargs))


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same for the host's own functions, which may take their time, and hold no connection afterwards."""

    def touch() -> T:
        close_old_connections()
        try:
            return function(*args, **kwargs)
        finally:
            close_old_connections()

    return await _run(None, touch)


async def _run(threads: Executor | None, function: Callable[[], T]) -> T:
    def run() -> T:
        try:
            return function()
        except (StopIteration, SystemExit) as error:
            # Of the host's own functions: no future takes the one, and the other would end the loop.
            raise RuntimeError(type(error).__name__) from error

    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(threads, contextvars.Context().run, run)


def let_go() -> None:
    """Close the database connections that are kept for the next touch, once what is queued is done."""
    _database.shutdown()
    _heart.shutdown()


def _after_fork() -> None:
    """Threads do not survive a fork."""
    global _database, _heart
    _database, _heart = _threads()


os.register_at_fork(after_in_child=_after_fork)
