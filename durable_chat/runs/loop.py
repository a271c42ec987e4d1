"""The one background event loop of a process, on which runs live, whoever serves or tests."""

import asyncio
import concurrent.futures
import contextvars
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_pid = 0


def running_loop() -> asyncio.AbstractEventLoop:
    """The loop, started by its first caller. A forked child starts its own: threads do not survive a fork."""
    global _loop, _pid
    with _lock:
        if _loop is None or _loop.is_closed() or _pid != os.getpid():
            _loop, _pid = asyncio.new_event_loop(), os.getpid()
            threading.Thread(target=_run, args=(_loop,), name="durable-chat-runs", daemon=True).start()
        return _loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """For ever: asyncio lets `sys.exit` through, and a host's own code that calls it ends its task alone."""
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            log.error("%s in a run: the process goes on", type(error).__name__)  # noqa: TRY400 - ids only
        else:
            return


def submit(
    function: Callable[..., Coroutine[Any, Any, T]], *args: Any, **kwargs: Any
) -> concurrent.futures.Future[T]:
    """Start a coroutine on the background loop.

    In a context of its own: a task made in a request would inherit the request's thread-sensitive executor,
    which ends with the request.
    """
    context = contextvars.Context()
    return context.run(asyncio.run_coroutine_threadsafe, function(*args, **kwargs), running_loop())


async def call(function: Callable[..., Coroutine[Any, Any, T]], *args: Any, **kwargs: Any) -> T:
    """Run a coroutine function on the background loop and await its result from any other loop.

    A caller that is cancelled stops waiting; what it began goes on to its end.
    """
    return await asyncio.shield(asyncio.wrap_future(submit(function, *args, **kwargs)))


def block(
    function: Callable[..., Coroutine[Any, Any, T]], *args: Any, timeout: float | None, **kwargs: Any
) -> T:
    """The same for synchronous callers; raises TimeoutError after `timeout` seconds."""
    return submit(function, *args, **kwargs).result(timeout)
