"""Where runs begin and how they are reached: in this process, in a worker, or in another process."""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

from durable_chat import backends, conf
from durable_chat.connections import in_database
from durable_chat.exceptions import Unavailable
from durable_chat.keys import ModelKey, key_of
from durable_chat.messages import Prompt, Turn
from durable_chat.models import Conversation, Run
from durable_chat.runs import claim as claims
from durable_chat.runs import ends, heart, journal, progress, workers
from durable_chat.runs.admission import Due, Ending, Existing, Queued, admit
from durable_chat.runs.claim import Claim
from durable_chat.runs.ends import End
from durable_chat.runs.execute import Execution
from durable_chat.runs.holder import holder
from durable_chat.runs.mending import mend
from durable_chat.runs.queue import next_in_line, withdraw
from durable_chat.runs.recover import recover
from durable_chat.streams.departure import departure
from durable_chat.streams.protocol.errors import StreamError

log = logging.getLogger(__name__)

ENDING_SECONDS = 2.0  # how long a send waits for a run that has said its last word
ACCEPT_SECONDS = 5.0  # how long a send waits for the streams service
POLL_SECONDS = 0.05  # how often it looks, when that run lives in another process

NO_KEYS: Final[Mapping[str, ModelKey]] = MappingProxyType({})  # what a run has that nobody sent a key for


@dataclass(frozen=True, slots=True)
class Tended:
    """The run that was ended for a dead process, and the run that was begun; None where there was none."""

    recovered: str | None
    begun: str | None


async def send(conversation: Conversation, turn: Turn, *, own_keys: Mapping[str, ModelKey] = NO_KEYS) -> str:
    """Begin the run that answers a turn, or find the one that does or will; its id. On the background loop.

    Returns when the echo and RUN_STARTED are durable, or the message's place in the line. The user's own keys
    go to the run that this begins, and nowhere else. Raises NotFound, Conflict, Busy, Unavailable.
    """
    task = asyncio.current_task()
    assert task is not None
    heart.keep(task)
    found = await _admit(conversation, turn)
    if isinstance(found, Queued):
        await _wait(conversation.pk, found)
    if not isinstance(found, Claim):
        return found.run_id
    execution = _begin(found, own_keys)
    # Who gives up waiting may ask again under the same id, and finds this run still trying.
    done, _ = await asyncio.wait({execution.accepted}, timeout=ACCEPT_SECONDS)
    if not done or isinstance(execution.accepted.exception(), StreamError):
        raise Unavailable("The message could not be written down yet: try again in a moment.")
    execution.accepted.result()
    return found.run_id


async def _admit(conversation: Conversation, turn: Turn) -> Claim | Queued | Existing:
    if departure.begun:
        raise Unavailable("This server is about to end: try again in a moment.")
    deadline = time.monotonic() + ENDING_SECONDS
    _check_backends()
    with suppress(StreamError):  # a service that is away may be back in time for the run
        await mend(conversation.pk, seen=conversation)
    while True:
        try:
            return await in_database(
                admit,
                conversation.pk,
                turn,
                holder=holder(),
                lease_seconds=conf.get().lease_seconds,
                when_busy=conf.get().when_busy,
                patient=time.monotonic() < deadline,
            )
        except Ending as ending:
            await _release_of(ending.run_id)
        except Due:
            await tend(conversation.pk)


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
    await heart.catch_up(conversation_id)
    try:
        recovered = await recover(conversation_id, holder=holder())
    except StreamError as error:
        raise Unavailable("The last answer was interrupted and cannot be filed yet: try again.") from error
    begun = await advance(conversation_id) or await _ask_again(conversation_id)
    return Tended(recovered.run_id if recovered is not None else None, begun)


async def take_up(run_id: str) -> None:
    """Write the answer of an accepted run, here and to its end; nothing when it waits no longer."""
    if await _take_up(run_id):
        await heart.drain()


async def _take_up(run_id: str) -> bool:
    if departure.begun:
        return False
    _check_backends()
    claim = await in_database(claims.take_up, run_id, holder=holder(), lease_seconds=conf.get().lease_seconds)
    if claim is not None:
        _begin(claim)
    return claim is not None


async def _ask_again(conversation_id: str) -> str | None:
    """If a run has waited long for a worker: ask another, or begin it here if there are none any more."""
    run_id = await in_database(progress.ask_again, conversation_id)
    if run_id is None:
        return None
    if workers.wanted():
        await workers.ask(run_id)
        return None
    return run_id if await _take_up(run_id) else None


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
    # The line first: a run goes from it into its turn, and not back.
    if run_id is not None and await in_database(withdraw, conversation_id, run_id):
        return True
    run = await in_database(progress.request_stop, conversation_id, run_id)
    if run is not None:
        await _hasten(conversation_id, run.pk)
    return run is not None


async def _hasten(conversation_id: str, run_id: str) -> None:
    """Let a run that was asked to stop know it at once, or end it if no worker has begun it."""
    if not heart.stop(run_id, ends.STOPPED):
        with suppress(Unavailable):
            await tend(conversation_id)


async def end(run_id: str, end: End) -> None:
    """End a run of this process, in its order."""
    if heart.stop(run_id, end):
        await heart.drain()


async def _release_of(run_id: str) -> None:
    """Until the run is released if it is ours, else until it is worth another look."""
    if not await heart.wait(run_id, timeout=ENDING_SECONDS):
        await asyncio.sleep(POLL_SECONDS)


def _check_backends() -> None:
    """Raises ImproperlyConfigured: a misconfigured site must not leave a conversation claimed."""
    backends.get_streams()
    backends.get_provider()


def _begin(claim: Claim, own_keys: Mapping[str, ModelKey] = NO_KEYS) -> Execution:
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
    here = claim.accepted or not workers.wanted()
    execution = Execution(claim, prompt, streams=streams, provider=provider, here=here)
    execution.accepted.add_done_callback(asyncio.Future.exception)  # nobody may be waiting for it
    if claim.stopping:
        execution.stop()
    heart.start(execution, then=partial(_keep_on, claim, here))
    return execution


def _keep_on(claim: Claim, here: bool) -> None:
    follow = _pass_on(claim.conversation_id) if here else _hand_over(claim)
    heart.keep(asyncio.create_task(follow))


async def _pass_on(conversation_id: str) -> None:
    try:
        await advance(conversation_id)
    except Exception:
        log.exception("the line of %s does not move; the next sweep will look at it", conversation_id)


async def _hand_over(claim: Claim) -> None:
    """To a worker, if the run is accepted, and neither stopped nor given up."""
    if await in_database(progress.hand_over, claim):
        await workers.ask(claim.run_id)
    else:
        await _pass_on(claim.conversation_id)
