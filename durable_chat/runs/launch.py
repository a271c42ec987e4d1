"""Where runs execute: on this process's background loop, a task each, with one heart for all of them."""

import asyncio
import logging
import os
import time

from django.db import DatabaseError

from durable_chat import backends, conf
from durable_chat.connections import in_database
from durable_chat.exceptions import Busy, Unavailable
from durable_chat.messages import Prompt, Turn
from durable_chat.models import Run
from durable_chat.runs import journal, progress
from durable_chat.runs.admission import Ending, Existing, Expired, admit
from durable_chat.runs.claim import Claim
from durable_chat.runs.execute import Execution
from durable_chat.runs.holder import holder
from durable_chat.runs.recover import recover
from durable_chat.streams.protocol.errors import StreamError

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
ENDING_SECONDS = 2.0  # how long a send waits for a run that has said its last word
ACCEPT_SECONDS = 5.0  # how long a send waits for the streams service
POLL_SECONDS = 0.05  # how often it looks, when that run lives in another process

# What this process runs. Truth is in the database and the stream; this is only how to reach the tasks.
_live: dict[str, tuple[Execution, asyncio.Task[None]]] = {}
_sending: set[asyncio.Task[object]] = set()
_heart: asyncio.Task[None] | None = None


def _after_fork() -> None:
    """What the parent runs is not the child's."""
    global _heart
    _live.clear()
    _sending.clear()
    _heart = None


os.register_at_fork(after_in_child=_after_fork)


async def send(conversation_id: str, turn: Turn) -> str:
    """Begin the run that answers a turn, or find the one that does; its id. On the background loop.

    Returns when the echo and RUN_STARTED are durable. Raises NotFound, Conflict, Busy, Unavailable.
    """
    task = asyncio.current_task()
    assert task is not None
    _sending.add(task)
    task.add_done_callback(_sending.discard)
    # Before the claim: a misconfigured site must not leave a conversation claimed.
    streams, provider = backends.get_streams(), backends.get_provider()
    found = await _claim(conversation_id, turn)
    if isinstance(found, Existing):
        return found.run_id
    journal.note(found, "claimed")
    prompt = Prompt(
        conversation_id=conversation_id,
        run_id=found.run_id,
        messages=tuple(message for message in found.messages if message.parts),
        options=turn.options,
        key=conf.get().provider.api_key,
    )
    execution = _start(Execution(found, prompt, streams=streams, provider=provider))
    # Who gives up waiting may ask again under the same id, and finds this run still trying.
    done, _ = await asyncio.wait({execution.accepted}, timeout=ACCEPT_SECONDS)
    if not done or isinstance(execution.accepted.exception(), StreamError):
        raise Unavailable("The message could not be written down yet: try again in a moment.")
    execution.accepted.result()
    return found.run_id


async def _claim(conversation_id: str, turn: Turn) -> Claim | Existing:
    deadline = time.monotonic() + ENDING_SECONDS
    while True:
        try:
            return await in_database(
                admit,
                conversation_id,
                turn,
                holder=holder(),
                lease_seconds=conf.get().lease_seconds,
            )
        except Ending as ending:
            if time.monotonic() > deadline:
                raise Busy("The last answer is still being filed: try again.", run_id=ending.run_id) from None
            await _release_of(ending.run_id)
        except Expired as expired:
            await tend(expired.run_id)


async def tend(run_id: str) -> None:
    """Recover a run whose lease has expired. Raises Unavailable while the streams service is away."""
    try:
        await recover(run_id, holder=holder())
    except StreamError as error:
        raise Unavailable("The last answer was interrupted and cannot be filed yet: try again.") from error


async def finish(run_id: str) -> Run | None:
    """Wait for the end of a run, wherever it lives; the ended run, or None when its conversation is gone."""
    while True:
        run: Run | None = await in_database(Run.objects.filter(pk=run_id).first)
        if run is None or not run.active:
            return run
        await _release_of(run_id)


async def stop(conversation_id: str) -> bool:
    """Ask the conversation's active run to stop, here at once, elsewhere at its next heartbeat."""
    run_id = await in_database(progress.request_stop, conversation_id)
    if run_id in _live:
        _live[run_id][0].stop()
    return run_id is not None


async def halt(run_id: str) -> None:
    """End a run of this process without a further write, because its conversation is being deleted."""
    if run_id in _live:
        execution, task = _live[run_id]
        execution.lose()
        await asyncio.wait({task})


async def drain() -> None:
    """Wait until this process runs nothing."""
    while busy := _sending | {task for _, task in _live.values()}:
        await asyncio.wait(busy)
    if _heart is not None:
        await asyncio.wait({_heart})


async def _release_of(run_id: str) -> None:
    """Until the run is released if it is ours, else until it is worth another look."""
    if run_id in _live:
        await asyncio.wait({_live[run_id][1]}, timeout=ENDING_SECONDS)
    else:
        await asyncio.sleep(POLL_SECONDS)


def _start(execution: Execution) -> Execution:
    global _heart
    run_id = execution.claim.run_id
    task = asyncio.create_task(execution.run(), name=f"run {run_id}")
    _live[run_id] = execution, task
    task.add_done_callback(lambda _: _live.pop(run_id))
    if _heart is None or _heart.done():
        _heart = asyncio.create_task(_beat(), name="heart")
    return execution


async def _beat() -> None:
    """While anything runs here: renew every lease, see who was asked to stop and who was taken over."""
    while _live:
        # A short lease is renewed more often: one late beat must not cost a run that is well.
        beat_seconds = min(BEAT_SECONDS, conf.get().lease_seconds / 3)
        await asyncio.wait({task for _, task in _live.values()}, timeout=beat_seconds)
        asked = set(_live)
        try:
            held, stopping = await in_database(
                progress.beat, asked, holder=holder(), lease_seconds=conf.get().lease_seconds
            )
        except DatabaseError:
            log.exception("the heart missed a beat")  # leases outlast many: the next one may succeed
            continue
        for run_id in asked & set(_live):
            execution = _live[run_id][0]
            if run_id not in held:
                execution.lose()
            elif run_id in stopping:
                execution.stop()
