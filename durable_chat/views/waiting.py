"""A run that waits for its turn, as its own reader sees it: nothing, until it begins or is withdrawn."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Final

from durable_chat.chunks import Chunk, run_error
from durable_chat.connections import in_database
from durable_chat.models import Run
from durable_chat.streams.protocol.exchange import Body

LOOK_SECONDS: Final = 1.0


def is_withdrawn(run: Run) -> bool:
    """Whether it ended before its turn: there is nothing of it in the stream, and there will not be."""
    return run.epoch == 0 and not run.unfinished


def withdrawal(run: Run) -> Chunk:
    """The end that its readers would have read, had it begun."""
    text = "The message was withdrawn."
    return run_error(text, thread_id=run.conversation_id, run_id=run.pk, code="stopped")


async def until_withdrawn(body: Body, run: Run) -> AsyncGenerator[bytes, None]:
    """The pieces of a live read, and while the run waits a look at its row: no chunk says that it is gone."""
    pieces = aiter(body)
    coming = asyncio.ensure_future(anext(pieces, None))
    try:
        while not is_withdrawn(run):
            waits = run.state == Run.State.QUEUED
            await asyncio.wait({coming}, timeout=LOOK_SECONDS if waits else None)
            if waits:
                await in_database(_look, run)
            if coming.done():
                if (piece := coming.result()) is None:
                    return
                yield piece
                coming = asyncio.ensure_future(anext(pieces, None))
    finally:
        coming.cancel()
        await asyncio.wait({coming})


def _look(run: Run) -> None:
    """Bring the row up to date; one that went with its conversation stays as it was."""
    with suppress(Run.DoesNotExist):
        run.refresh_from_db(fields=["state", "epoch"])
