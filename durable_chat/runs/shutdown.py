"""What becomes of a process's runs when it is told to end."""

import asyncio
import atexit
import logging
from typing import Final

from django.db import Error, close_old_connections

from durable_chat import conf
from durable_chat.runs import ends, heart, loop, progress
from durable_chat.runs.holder import holder
from durable_chat.streams.departure import departure

log = logging.getLogger(__name__)

STOP_SECONDS: Final = 8.0  # for a provider to close, and for the last words to be written
AGAIN_SECONDS: Final = 0.2  # a send that was under way may begin a run yet


def watch() -> None:
    """Be ready for SIGTERM, where the caller's thread can be: the main one, under an ASGI server."""
    departure.watch()


def _wind_up() -> None:
    """Let them end for DRAIN_SECONDS, then end them and say why.

    Raises TimeoutError; the leases cover the rest.
    """
    seconds = conf.get().drain_seconds
    loop.block(_drain, seconds, timeout=seconds + STOP_SECONDS)


async def _drain(seconds: float) -> None:
    drained = asyncio.create_task(heart.drain())
    await asyncio.wait({drained}, timeout=seconds)
    while not drained.done():
        heart.stop_all(ends.SHUTDOWN)
        await asyncio.wait({drained}, timeout=AGAIN_SECONDS)


def _give_up() -> None:
    """A process that ends in order, but not by SIGTERM (Ctrl-C, a reloader), leaves no lease to wait for."""
    if not heart.beats():
        return
    try:
        progress.abandon_all(holder=holder())
        close_old_connections()
    except Error as error:
        log.warning("leases were not given up, and will run out: %s", type(error).__name__)


departure.first(_wind_up)
atexit.register(_give_up)
