"""What a claim's holder says of its run as it goes on, each one transaction that starts with its write."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction
from django.db.models import BooleanField, ExpressionWrapper, Q
from django.db.models.functions import Now

from durable_chat.messages import Message as Turned
from durable_chat.models import Conversation, Message, Run
from durable_chat.runs.claim import Claim, Fenced
from durable_chat.runs.rows import from_now, held, is_overdue, next_position


def accepted(claim: Claim, offset: str) -> None:
    """The stream says what was asked, up to `offset`: show it, and hide what the answer will replace.

    Raises Fenced.
    """
    with transaction.atomic():
        _advance(claim, offset)
        asked = Message.objects.filter(answers=claim.run_id).values_list("position", flat=True).get()
        since = Message.objects.filter(conversation_id=claim.conversation_id, position__gte=asked)
        since.update(visible=ExpressionWrapper(Q(position=asked), BooleanField()))


def hand_over(claim: Claim) -> bool:
    """Let an accepted run wait for a worker; False when it has ended, was given up, or is somebody else's."""
    mine = held(claim.run_id, claim.epoch).filter(state=Run.State.RUNNING, lease_expires_at__gt=Now())
    waiting = {"state": Run.State.ACCEPTED, "holder": "", "lease_expires_at": None, "asked_at": Now()}
    return bool(mine.update(**waiting))


def ask_again(conversation_id: str) -> str | None:
    """The run for which another worker should be asked, for one caller at a time; None when there is none."""
    overdue = Run.objects.filter(is_overdue(), conversation=conversation_id)
    run_id: str | None = overdue.values_list("pk", flat=True).first()
    return run_id if run_id is not None and overdue.filter(pk=run_id).update(asked_at=Now()) else None


def end(claim: Claim) -> None:
    """The terminal chunk is about to be written. Raises Fenced."""
    if not held(claim.run_id, claim.epoch).update(state=Run.State.ENDING):
        raise Fenced


def release(
    claim: Claim,
    state: Run.State,
    offset: str,
    *,
    messages: Sequence[Turned],
    notice: str = "",
    error: str = "",
    usage: Any = None,
) -> None:
    """The terminal chunk is in the stream, which ends at `offset`: copy the answer and free the conversation.

    Raises Fenced.
    """
    with transaction.atomic():
        _advance(claim, offset)
        _add_answers(claim, messages)
        _ended(claim, state, offset, notice=notice, error=error, usage=usage)


def exists(claim: Claim) -> bool:
    """Whether the claimed conversation is still there."""
    return bool(Conversation.objects.filter(pk=claim.conversation_id).exists())


def abandon(claim: Claim) -> None:
    """This process gives up: whoever comes next recovers the run. Without a holder no late beat renews it."""
    held(claim.run_id, claim.epoch).update(holder="", lease_expires_at=from_now(-1))


def abandon_all(*, holder: str) -> None:
    """The same for all that this process holds: it ends."""
    Run.objects.active().filter(holder=holder).update(holder="", lease_expires_at=from_now(-1))


def beat(epochs: Mapping[str, int], *, holder: str, lease_seconds: float) -> tuple[set[str], set[str]]:
    """Renew the leases of these runs: (those still held at these epochs, those of them asked to stop)."""
    mine = Run.objects.active().filter(pk__in=list(epochs), holder=holder)
    mine.update(lease_expires_at=from_now(lease_seconds))
    told = mine.values_list("pk", "epoch", "stop_requested")
    held = {run_id: stop for run_id, epoch, stop in told if epoch == epochs[run_id]}
    return set(held), {run_id for run_id, stop in held.items() if stop}


def request_stop(conversation_id: str, run_id: str | None) -> Run | None:
    """Ask the conversation's active run to stop, if it is this one; None when there is nothing to stop."""
    active = Run.objects.active().filter(conversation=conversation_id)
    if run_id is not None:
        active = active.filter(pk=run_id)
    run = active.first()
    if run is not None:
        run.stop()
    return run


def repair(
    claim: Claim,
    state: Run.State,
    offset: str,
    *,
    messages: Sequence[Turned],
    notice: str = "",
    usage: Any = None,
) -> None:
    """The log of a run whose process died is finished: `messages` is its fold up to `offset`. Raises Fenced.

    A user message that never reached the stream is forgotten, so that sending it again is a first time.
    """
    with transaction.atomic():
        _restore(claim, offset, messages)
        Message.objects.filter(answers=claim.run_id, visible=False).delete()
        _add_answers(claim, messages)
        error = "The process that wrote this answer died; its lease expired."
        _ended(claim, state, offset, notice=notice, error=error, usage=usage)


def requeue(claim: Claim, offset: str, *, messages: Sequence[Turned]) -> None:
    """Its process died before a run that had waited could begin: it waits again. Raises Fenced."""
    with transaction.atomic():
        _restore(claim, offset, messages)
        queued = {"state": Run.State.QUEUED, "holder": "", "lease_expires_at": None}
        held(claim.run_id, claim.epoch).update(**queued)


def _restore(claim: Claim, offset: str, messages: Sequence[Turned]) -> None:
    """Show what the stream says, and nothing else."""
    _advance(claim, offset)
    rows = Message.objects.filter(conversation_id=claim.conversation_id)
    said = [message.id for message in messages]
    rows.filter(visible=True).exclude(client_id__in=said).update(visible=False)
    rows.filter(client_id__in=said).update(visible=True)


def _add_answers(claim: Claim, messages: Sequence[Turned]) -> None:
    """Rows for those of `messages` that have none yet."""
    conversation = Conversation.objects.get(pk=claim.conversation_id)
    known = set(conversation.messages.values_list("client_id", flat=True))
    first = next_position(conversation)
    new = [message for message in messages if message.id not in known]
    Message.objects.bulk_create(
        Message(
            conversation=conversation,
            run_id=claim.run_id,
            client_id=message.id,
            role=message.role,
            parts=list(message.parts),
            metadata=dict(message.metadata),
            position=first + place,
        )
        for place, message in enumerate(new)
    )


def _advance(claim: Claim, offset: str) -> None:
    held = Conversation.objects.filter(pk=claim.conversation_id, epoch=claim.epoch)
    if not held.update(offset=offset, updated_at=Now()):
        raise Fenced


def _ended(claim: Claim, state: Run.State, offset: str, **told: Any) -> None:
    held(claim.run_id, claim.epoch).update(
        state=state, end_offset=offset, lease_expires_at=None, ended_at=Now(), **told
    )
