"""What becomes known of a run as it goes on: a line in the log for each change, signals for the host."""

import logging
from functools import partial
from typing import Final

from django.db import transaction
from django.dispatch import Signal

from durable_chat.connections import in_thread
from durable_chat.models import Run
from durable_chat.runs.claim import Claim
from durable_chat.runs.holder import holder
from durable_chat.signals import run_failed, run_finished, run_started

log = logging.getLogger(__name__)

UNHAPPY: Final = frozenset({Run.State.FAILED, Run.State.INTERRUPTED})


def note(claim: Claim, state: str, *, level: int = logging.INFO) -> None:
    """One line for one change: ids alone, no content and no secrets.

    Its record has `run`, `conversation`, `state`, `epoch` and `holder`. `state` is "queued", "claimed",
    "accepted", "running", "ending", "done", "failed", "stopped", "interrupted"; "taken over" by this process,
    which recovers the run; or "lost" to another process or with its conversation.
    """
    _note(claim.run_id, claim.conversation_id, claim.epoch, state=state, level=level)


def note_waiting(run: Run, state: str) -> None:
    """The same after the commit, for a run in its line: it is "queued", or "stopped" there."""
    told = partial(_note, run.pk, run.conversation_id, run.epoch, state=state, level=logging.INFO)
    transaction.on_commit(told, robust=True)


def _note(run_id: str, conversation_id: str, epoch: int, *, state: str, level: int) -> None:
    names = {"run": run_id, "conversation": conversation_id}
    extra = {**names, "state": str(state), "epoch": epoch, "holder": holder()}
    log.log(level, "run %(run)s of %(conversation)s: %(state)s", extra, extra=extra)


async def began(claim: Claim) -> None:
    """Readers have been told of the run."""
    note(claim, "accepted")
    await _tell(run_started, claim)


async def ended(claim: Claim, state: Run.State) -> None:
    """The run's row says how it ended, whoever ended it."""
    note(claim, state, level=logging.WARNING if state in UNHAPPY else logging.INFO)
    await _tell(run_failed if state in UNHAPPY else run_finished, claim, state=str(state))


async def _tell(signal: Signal, claim: Claim, **extra: str) -> None:
    if not signal.has_listeners(Run):
        return
    named = {"run_id": claim.run_id, "conversation_id": claim.conversation_id}
    try:
        await in_thread(signal.send_robust, Run, **named, **extra)  # Django logs the receivers that fail
    except RuntimeError as error:
        log.error("a receiver for run %s called sys.exit: %s", claim.run_id, error)  # noqa: TRY400
