"""What this process runs, a task each on the background loop, and the one heart that keeps their leases."""

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any, Final

from durable_chat import conf
from durable_chat.connections import promptly
from durable_chat.runs import progress
from durable_chat.runs.ends import End
from durable_chat.runs.execute import Execution
from durable_chat.runs.holder import holder

log = logging.getLogger(__name__)

BEAT_SECONDS: Final = 1.0

# Truth is in the database and the stream; this is only how to reach the tasks.
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


def start(execution: Execution, *, then: Callable[[], None]) -> None:
    """Run it, and keep its lease meanwhile; call `then` when it has ended."""
    global _heart
    run_id = execution.claim.run_id

    def ended(task: "asyncio.Task[None]") -> None:
        if _live[run_id][1] is task:
            del _live[run_id]
        then()

    task = asyncio.create_task(execution.run(), name=f"run {run_id}")
    if run_id in _live:  # this process slept past its lease, and has begun its own run once more
        before, fenced = _live[run_id]
        before.lose()
        keep(fenced)
    _live[run_id] = execution, task
    task.add_done_callback(ended)
    if _heart is None or _heart.done():
        _heart = asyncio.create_task(_beat_on(), name="heart")


def keep(task: "asyncio.Task[Any]") -> None:
    """This, too, must end before the process may."""
    _busy.add(task)
    task.add_done_callback(_busy.discard)


def stop(run_id: str, end: End) -> bool:
    """End a run at once, in its order; whether it is one of this process."""
    if run_id not in _live:
        return False
    _live[run_id][0].stop(end)
    return True


def beats() -> bool:
    """Whether this process holds any lease."""
    return bool(_live)


def stop_all(end: End) -> None:
    """End every run of this process, in their order."""
    for execution, _ in _live.values():
        execution.stop(end)


async def halt(run_id: str) -> None:
    """End a run of this process without a further write, because its conversation is being deleted."""
    if run_id in _live:
        execution, task = _live[run_id]
        execution.lose()
        await asyncio.wait({task})


async def wait(run_id: str, *, timeout: float) -> bool:
    """Until the run has ended, if it is one of this process; whether it is."""
    if run_id not in _live:
        return False
    await asyncio.wait({_live[run_id][1]}, timeout=timeout)
    return True


async def drain() -> None:
    """Wait until this process runs nothing."""
    while busy := _busy | {task for _, task in _live.values()}:
        await asyncio.wait(busy)
    if _heart is not None:
        await asyncio.wait({_heart})


async def catch_up(conversation_id: str) -> None:
    """Before anybody looks for the dead in this conversation: a run of this process is well, however late.

    A process that wakes up renews what nobody has taken over meanwhile. Raises what the database does.
    """
    if any(execution.claim.conversation_id == conversation_id for execution, _ in _live.values()):
        await _beat()


async def _beat_on() -> None:
    """While anything runs here, at a steady pace however long a beat takes."""
    clock = asyncio.get_running_loop().time
    last = clock()
    while _live:
        # A short lease is renewed more often: one late beat must not cost a run that is well.
        due = last + min(BEAT_SECONDS, conf.get().lease_seconds / 3)
        await asyncio.wait({task for _, task in _live.values()}, timeout=max(0.0, due - clock()))
        last = clock()
        try:
            await _beat()
        except Exception:
            log.exception("the heart missed a beat")  # leases outlast many: the next one may succeed


async def _beat() -> None:
    """Renew every lease, see who was asked to stop and who was taken over."""
    beating = {run_id: execution for run_id, (execution, _) in _live.items()}
    epochs = {run_id: execution.claim.epoch for run_id, execution in beating.items()}
    held, stopping = await promptly(
        progress.beat, epochs, holder=holder(), lease_seconds=conf.get().lease_seconds
    )
    for run_id, execution in beating.items():
        if run_id not in held:
            execution.lose()
        elif run_id in stopping:
            execution.stop()
