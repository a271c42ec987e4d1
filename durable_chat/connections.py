"""Connections to elsewhere: one HTTP transport per running event loop, database touches off every loop."""

import asyncio
import contextvars
import os
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
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

P = ParamSpec("P")
T = TypeVar("T")

# Each with what closes it.
_transports: dict[asyncio.AbstractEventLoop, tuple[Transport, AsyncGenerator[None, None]]] = {}
_lock = Lock()


def _pool() -> ThreadPoolExecutor:
    # Few on purpose: a touch takes a millisecond, and each thread is a database connection while it lasts.
    return ThreadPoolExecutor(max_workers=4, thread_name_prefix="durable-chat-database")


def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="durable-chat-heart")


_threads, _prompt = _pool(), _thread()


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
    """Run a synchronous function that touches the database, and hold no connection afterwards.

    Off the request's thread-sensitive executor, so that what outlives its request (a run, a live read, a
    WebSocket) can use it; in a context of its own, so that nothing of the request leaks into it. Not for what
    waits for the background loop: these few threads are what the loop waits for.
    """
    return await _run(_threads, partial(function, *args, **kwargs))


async def promptly(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same on a thread of its own, for what keeps leases: it must not stand in line behind the rest."""
    return await _run(_prompt, partial(function, *args, **kwargs))


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same for the host's own functions, which may take their time."""
    return await _run(None, partial(function, *args, **kwargs))


async def _run(threads: ThreadPoolExecutor | None, function: Callable[[], T]) -> T:
    def touch() -> T:
        close_old_connections()
        try:
            return function()
        except (StopIteration, SystemExit) as error:
            # Of the host's own functions: no future takes the one, and the other would end the loop.
            raise RuntimeError(type(error).__name__) from error
        finally:
            close_old_connections()

    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(threads, contextvars.Context().run, touch)


def _after_fork() -> None:
    """Threads do not survive a fork."""
    global _threads, _prompt
    _threads, _prompt = _pool(), _thread()


os.register_at_fork(after_in_child=_after_fork)
