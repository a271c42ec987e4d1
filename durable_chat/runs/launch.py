"""Where runs execute: on this process's background loop, a task each, with one heart for all of them."""

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from django.db import DatabaseError

from durable_chat import backends, conf
from durable_chat.connections import in_database
from durable_chat.exceptions import Busy, Unavailable
from durable_chat.keys import ModelKey, key_of
from durable_chat.messages import Prompt, Turn
from durable_chat.models import Run
from durable_chat.runs import journal, progress
from durable_chat.runs.admission import Due, Ending, Existing, Queued, admit
from durable_chat.runs.claim import Claim
from durable_chat.runs.ends import End
from durable_chat.runs.execute import Execution
from durable_chat.runs.holder import holder
from durable_chat.runs.queue import next_in_line, withdraw
from durable_chat.runs.recover import recover
from durable_chat.streams.departure import departure
from durable_chat.streams.protocol.errors import StreamError

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
ENDING_SECONDS = 2.0  # how long a send waits for a run that has said its last word
ACCEPT_SECONDS = 5.0  # how long a send waits for the streams service
POLL_SECONDS = 0.05  # how often it looks, when that run lives in another process

NO_KEYS: Final[Mapping[str, ModelKey]] = MappingProxyType({})  # what a run has that nobody sent a key for

# What this process runs. Truth is in the database and the stream; this is only how to reach the tasks.
_live: dict[str, tuple[Execution, asyncio.Task[None]]] = {}
_busy: set[asyncio.Task[Any]] = set()  # what else must end before this process may
_heart: asyncio.Task[None] | None = None


def _after_fork() -> None:
    """What the parent runs is not the child's."""
    global _heart
    _live.clear()
    _busy.clear()
    _heart = None


os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True, slots=True)
class Tended:
    """The run that was ended for a dead process, and the run that was begun; None where there was none."""

    recovered: str | None
    begun: str | None


async def send(conversation_id: str, turn: Turn, *, own_keys: Mapping[str, ModelKey] = NO_KEYS) -> str:
    """Begin the run that answers a turn, or find the one that does or will; its id. On the background loop.

    Returns when the echo and RUN_STARTED are durable, or the message's place in the line. The user's own keys
    go to the run that this begins, and nowhere else. Raises NotFound, Conflict, Busy, Unavailable.
    """
    task = asyncio.current_task()
    assert task is not None
    _keep(task)
    found = await _admit(conversation_id, turn)
    if isinstance(found, Queued):
        await _wait(conversation_id, found)
    if not isinstance(found, Claim):
        return found.run_id
    execution = _begin(found, own_keys)
    # Who gives up waiting may ask again under the same id, and finds this run still trying.
    done, _ = await asyncio.wait({execution.accepted}, timeout=ACCEPT_SECONDS)
    if not done or isinstance(execution.accepted.exception(), StreamError):
        raise Unavailable("The message could not be written down yet: try again in a moment.")
    execution.accepted.result()
    return found.run_id


async def _admit(conversation_id: str, turn: Turn) -> Claim | Queued | Existing:
    if departure.begun:
        raise Unavailable("This server is about to end: try again in a moment.")
    deadline = time.monotonic() + ENDING_SECONDS
    _check_backends()
    while True:
        try:
            return await in_database(
                admit,
                conversation_id,
                turn,
                holder=holder(),
                lease_seconds=conf.get().lease_seconds,
                when_busy=conf.get().when_busy,
            )
        except Ending as ending:
            if time.monotonic() > deadline:
                raise Busy("The last answer is still being filed: try again.", run_id=ending.run_id) from None
            await _release_of(ending.run_id)
        except Due:
            await tend(conversation_id)


async def _wait(conversation_id: str, queued: Queued) -> None:
    """A message has its place in the line: see that the line moves."""
    if queued.behind is None:
        await advance(conversation_id)
    elif conf.get().when_busy == "interrupt":
        await _hasten(conversation_id, queued.behind)


async def advance(conversation_id: str) -> str | None:
    """Begin the next run that waits in this conversation, if it is free; its id, or None."""
    if departure.begun:
        return None
    _check_backends()
    claim = await in_database(
        next_in_line,
        conversation_id,
        holder=holder(),
        lease_seconds=conf.get().lease_seconds,
        hurried=conf.get().when_busy == "interrupt",
    )
    if claim is None:
        return None
    _begin(claim)
    return claim.run_id


async def tend(conversation_id: str) -> Tended:
    """Do what nobody else does for a conversation: end a run whose process died, begin the next that waits.

    Raises Unavailable while the streams service is away.
    """
    try:
        recovered = await recover(conversation_id, holder=holder())
    except StreamError as error:
        raise Unavailable("The last answer was interrupted and cannot be filed yet: try again.") from error
    begun = await advance(conversation_id)
    return Tended(recovered.run_id if recovered is not None else None, begun)


async def finish(run_id: str) -> Run | None:
    """Wait for the end of a run, wherever it lives; the ended run, or None when its conversation is gone."""
    while True:
        run: Run | None = await in_database(Run.objects.filter(pk=run_id).first)
        if run is None or not run.unfinished:
            return run
        await _release_of(run_id)


async def stop(conversation_id: str, run_id: str | None = None) -> bool:
    """Ask the conversation's active run to stop, here at once, elsewhere at its next heartbeat.

    A run that is named is meant whether it is active or waits. Whether there was one.
    """
    run = await in_database(progress.request_stop, conversation_id, run_id)
    if run is not None:
        await _hasten(conversation_id, run.pk)
        return True
    return run_id is not None and await in_database(withdraw, conversation_id, run_id)


async def _hasten(conversation_id: str, run_id: str) -> None:
    """Let a run that was asked to stop know it at once, or end it if no worker has begun it."""
    if run_id in _live:
        _live[run_id][0].stop()
        return
    with suppress(Unavailable):
        await tend(conversation_id)


def stop_all(end: End) -> None:
    """End every run of this process."""
    for execution, _ in list(_live.values()):
        execution.stop(end)


async def halt(run_id: str) -> None:
    """End a run of this process without a further write, because its conversation is being deleted."""
    if run_id in _live:
        execution, task = _live[run_id]
        execution.lose()
        await asyncio.wait({task})


async def drain() -> None:
    """Wait until this process runs nothing."""
    while busy := _busy | {task for _, task in _live.values()}:
        await asyncio.wait(busy)
    if _heart is not None:
        await asyncio.wait({_heart})


async def _release_of(run_id: str) -> None:
    """Until the run is released if it is ours, else until it is worth another look."""
    if run_id in _live:
        await asyncio.wait({_live[run_id][1]}, timeout=ENDING_SECONDS)
    else:
        await asyncio.sleep(POLL_SECONDS)


def _check_backends() -> None:
    """Raises ImproperlyConfigured: a misconfigured site must not leave a conversation claimed."""
    backends.get_streams()
    backends.get_provider()


def _begin(claim: Claim, own_keys: Mapping[str, ModelKey] = NO_KEYS) -> Execution:
    global _heart
    journal.note(claim, "claimed")
    prompt = Prompt(
        conversation_id=claim.conversation_id,
        run_id=claim.run_id,
        messages=tuple(message for message in claim.messages if message.parts),
        options=claim.options,
        key=key_of(own_keys, conf.get().provider.api_key),
        own_keys=own_keys,
    )
    streams, provider = backends.get_streams(), backends.get_provider()
    execution = Execution(claim, prompt, streams=streams, provider=provider)
    execution.accepted.add_done_callback(asyncio.Future.exception)  # nobody may be waiting for it
    if claim.stopping:
        execution.stop()
    task = asyncio.create_task(execution.run(), name=f"run {claim.run_id}")
    _live[claim.run_id] = execution, task
    task.add_done_callback(lambda _: _ended(claim))
    if _heart is None or _heart.done():
        _heart = asyncio.create_task(_beat(), name="heart")
    return execution


def _ended(claim: Claim) -> None:
    _live.pop(claim.run_id)
    _keep(asyncio.create_task(_pass_on(claim.conversation_id)))


async def _pass_on(conversation_id: str) -> None:
    try:
        await advance(conversation_id)
    except Exception:
        log.exception("the line of %s does not move; the next sweep will look at it", conversation_id)


def _keep(task: "asyncio.Task[Any]") -> None:
    _busy.add(task)
    task.add_done_callback(_busy.discard)


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
