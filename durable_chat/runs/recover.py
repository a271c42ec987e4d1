"""A run whose process died: fence its writer, finish the log for the readers, keep the partial answer."""

import logging

from durable_chat import backends, conf
from durable_chat.answers import closing, message_id
from durable_chat.chunks import Chunk, custom, is_terminal, run_error
from durable_chat.connections import in_database
from durable_chat.messages import Fold
from durable_chat.models import Run
from durable_chat.runs import journal, progress
from durable_chat.runs.claim import Claim, Fenced, take_over
from durable_chat.runs.execute import PRODUCER_ID
from durable_chat.streams.client import Producer, StreamClient
from durable_chat.streams.protocol.errors import StaleEpoch, StreamError, StreamNotFound
from durable_chat.streams.protocol.offsets import START

PATIENCE_SECONDS = 2.0  # somebody waits for this; the next who comes tries again
INTERRUPTED = "The answer was interrupted. Send again to go on."


async def recover(run_id: str, *, holder: str) -> bool:
    """Recover one run if its lease has expired; False when somebody else does, or did.

    Raises Unavailable while the streams service is away; the run then waits for the next who comes.
    """
    claim = await in_database(take_over, run_id, holder=holder, lease_seconds=conf.get().lease_seconds)
    if claim is None:
        return False
    journal.note(claim, "taken over", level=logging.WARNING)
    try:
        state = await _finish(claim, backends.get_streams())
    except (Fenced, StaleEpoch):
        return False  # slower than its own lease: the next recoverer has taken over
    except StreamNotFound:
        state = Run.State.INTERRUPTED  # the log is lost, and with it what was not yet copied
        await in_database(progress.repair, claim, state, claim.offset, messages=claim.messages)
    except StreamError:
        await in_database(progress.abandon, claim)
        raise
    await journal.ended(claim, state)
    return True


async def _finish(claim: Claim, streams: StreamClient) -> Run.State:
    """Fence before reading: after the append at this epoch's seq 0 the dead writer can add nothing."""
    if claim.offset == START:
        await streams.create(claim.stream_path)
    async with Producer(
        streams, claim.stream_path, id=PRODUCER_ID, epoch=claim.epoch, give_up_after=PATIENCE_SECONDS
    ) as producer:
        offset = await producer.append([custom("run.recovering", {"runId": claim.run_id})])
        chunks = await _read(streams, claim.stream_path, start=claim.offset, end=offset)
        fold = Fold(claim.messages)
        for chunk in chunks:
            fold.apply(chunk)
        terminal = next((chunk for chunk in chunks if is_terminal(chunk, claim.run_id)), None)
        if terminal is None:
            closers = closing(fold, INTERRUPTED, name=_name(claim, chunks), known=claim.messages)
            terminal = run_error(
                INTERRUPTED, thread_id=claim.conversation_id, run_id=claim.run_id, code="interrupted"
            )
            offset = await producer.append([*closers, terminal])
    state = _state(terminal)
    told = {"notice": terminal.get("message", ""), "usage": terminal.get("usage")}
    await in_database(progress.repair, claim, state, offset, messages=fold.messages, **told)
    return state


async def _read(streams: StreamClient, path: str, *, start: str, end: str) -> list[Chunk]:
    """Everything after `start` up to `end`, which this writer's fence has made the tail."""
    chunks: list[Chunk] = []
    while start < end or start == START:  # offsets sort as text; START is not one of them
        batch = await streams.read(path, offset=start)
        chunks.extend(batch.items)
        start = batch.offset
    return chunks


def _name(claim: Claim, chunks: list[Chunk]) -> str | None:
    """What the answer is called, if its readers have been told that there will be one."""
    started = any(chunk["type"] == "RUN_STARTED" for chunk in chunks)
    return message_id(claim.run_id) if started else None


def _state(terminal: Chunk) -> Run.State:
    if terminal["type"] == "RUN_FINISHED":
        return Run.State.DONE
    states = {"stopped": Run.State.STOPPED, "interrupted": Run.State.INTERRUPTED}
    return states.get(str(terminal.get("code")), Run.State.FAILED)
