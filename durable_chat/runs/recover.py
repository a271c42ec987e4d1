"""A run whose process died: fence its writer, finish the log for the readers, keep the partial answer."""

import logging
from typing import Any

from durable_chat import backends, conf
from durable_chat.answers import closing, message_id, opening, usage_of
from durable_chat.chunks import Chunk, custom, is_terminal, run_error
from durable_chat.connections import in_database
from durable_chat.messages import Fold
from durable_chat.models import Message, Run
from durable_chat.runs import ends, journal, progress
from durable_chat.runs.claim import Claim, Fenced, take_over
from durable_chat.runs.ends import End
from durable_chat.runs.execute import PRODUCER_ID
from durable_chat.runs.mending import mend, sow
from durable_chat.streams.client import Producer, StreamClient
from durable_chat.streams.protocol.errors import StaleEpoch, StreamError, StreamGone, StreamNotFound
from durable_chat.streams.protocol.offsets import START

PATIENCE_SECONDS = 2.0  # somebody waits for this; the next who comes tries again


async def recover(conversation_id: str, *, holder: str) -> Claim | None:
    """Finish the run of this conversation that nobody writes any more; None when there is none.

    Raises Unavailable while the streams service is away; the run then waits for the next who comes.
    """
    claim = await in_database(
        take_over, conversation_id, holder=holder, lease_seconds=conf.get().lease_seconds
    )
    if claim is None:
        return None
    journal.note(claim, "taken over", level=logging.WARNING)
    try:
        state = await _end(claim)
    except (Fenced, StaleEpoch):
        return None  # slower than its own lease: the next recoverer has taken over
    except StreamError:
        await in_database(progress.abandon, claim)
        raise
    if state == Run.State.QUEUED:
        journal.note(claim, state)
    else:
        await journal.ended(claim, state)
    await mend(conversation_id)
    return claim


async def _end(claim: Claim) -> Run.State:
    try:
        return await _finish(claim, backends.get_streams())
    except (StreamNotFound, StreamGone):
        return await in_database(_forsake, claim)


async def _finish(claim: Claim, streams: StreamClient) -> Run.State:
    """Fence before reading: after the append at this epoch's seq 0 the dead writer can add nothing."""
    if claim.offset == START:
        await sow(streams, claim.stream_path, claim.messages)
    async with Producer(
        streams, claim.stream_path, id=PRODUCER_ID, epoch=claim.epoch, give_up_after=PATIENCE_SECONDS
    ) as producer:
        offset = await producer.append([custom("run.recovering", {"runId": claim.run_id})])
        if offset < claim.offset:
            raise StreamNotFound  # this is another stream than the one that the rows were copied from
        chunks = await _read(streams, claim.stream_path, start=claim.offset, end=offset)
        fold = Fold(claim.messages)
        for chunk in chunks:
            fold.apply(chunk)
        started = any(chunk.get("type") == "RUN_STARTED" for chunk in chunks)
        if claim.queued and not started and not claim.stopping:
            await in_database(progress.requeue, claim, offset, messages=fold.messages)
            return Run.State.QUEUED
        terminal = next((chunk for chunk in chunks if is_terminal(chunk, claim.run_id)), None)
        if terminal is None:
            # Readers who have been told that there will be an answer know it by this name.
            name = message_id(claim.run_id) if started else None
            end = ends.STOPPED if claim.stopping else ends.INTERRUPTED
            unsaid = await in_database(_unsaid, claim, fold) if claim.queued and not started else ()
            closers = closing(fold, end.text, name=name, ended=str(end.state), known=claim.messages)
            terminal = _terminal(claim, end, usage=usage_of(claim.run_id, chunks))
            offset = await producer.append([*unsaid, *closers, terminal])
    state = _state(terminal)
    told = {"notice": terminal.get("message", ""), "usage": terminal.get("usage")}
    await in_database(progress.repair, claim, state, offset, messages=fold.messages, **told)
    return state


def _unsaid(claim: Claim, fold: Fold) -> tuple[Chunk, ...]:
    """What was asked, applied to `fold`, if the stream does not say it yet.

    A message that waited was promised to be said. So a run that is stopped when its turn has come (as each is
    whose sender is in a hurry) does not go back to the line, in which a stop would withdraw the message.
    """
    asked = Message.objects.filter(answers=claim.run_id).first()
    if asked is None or any(message.id == asked.client_id for message in fold.messages):
        return ()
    chunks = opening((*fold.messages, asked.value()), echoed=False, replaces=False)
    for chunk in chunks:
        fold.apply(chunk)
    return chunks


def _forsake(claim: Claim) -> Run.State:
    """The log is lost, and with it what was not yet copied. What waited and was not said yet waits on."""
    if claim.queued and Message.objects.filter(answers=claim.run_id, visible=False).exists():
        progress.requeue(claim, claim.offset, messages=claim.messages)
        return Run.State.QUEUED
    state = Run.State.INTERRUPTED
    progress.repair(claim, state, claim.offset, messages=claim.messages, notice=ends.INTERRUPTED.text)
    return state


def _terminal(claim: Claim, end: End, *, usage: Any) -> Chunk:
    return run_error(
        end.text, thread_id=claim.conversation_id, run_id=claim.run_id, code=end.code, usage=usage
    )


async def _read(streams: StreamClient, path: str, *, start: str, end: str) -> list[Chunk]:
    """Everything after `start` up to `end`, which this writer's fence has made the tail."""
    chunks: list[Chunk] = []
    while start < end or start == START:  # offsets sort as text; START is not one of them
        batch = await streams.read(path, offset=start)
        chunks.extend(item for item in batch.items if isinstance(item, dict))  # all else is passed over
        start = batch.offset
    return chunks


def _state(terminal: Chunk) -> Run.State:
    if terminal["type"] == "RUN_FINISHED":
        return Run.State.DONE
    states = {"stopped": Run.State.STOPPED, "interrupted": Run.State.INTERRUPTED}
    return states.get(str(terminal.get("code")), Run.State.FAILED)
