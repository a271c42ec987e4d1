"""Every change of a Run's state, each one transaction that starts with its write. Called off the loop."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import BooleanField, DateTimeField, DurationField, ExpressionWrapper, F, Max, Q, Value
from django.db.models.functions import Now
from django.db.models.query import QuerySet

from durable_chat.answers import opening
from durable_chat.chunks import Chunk
from durable_chat.exceptions import Busy, Conflict, NotFound
from durable_chat.messages import Message as Turned
from durable_chat.messages import Turn
from durable_chat.models import Conversation, Message, Run


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write one conversation's stream: an epoch, until somebody takes the next one.

    `offset` is where the conversation's rows stand (see Conversation); `messages` are the visible ones,
    ending with the user's; `opening` is what the stream must say before the answer begins.
    """

    conversation_id: str
    stream_path: str
    run_id: str
    epoch: int
    offset: str
    messages: tuple[Turned, ...]
    opening: tuple[Chunk, ...] = ()


@dataclass(frozen=True, slots=True)
class Existing:
    """The run that already answers this message: active, or ended."""

    run_id: str


class Ending(Exception):
    """The active run is writing its end; in a moment the conversation is free."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id


class Expired(Exception):
    """The active run's process let its lease expire: recover it, then ask again."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id


class Fenced(Exception):
    """Somebody else has taken the conversation over: stop, and write nothing more anywhere."""


def claim(conversation_id: str, turn: Turn, *, holder: str, lease_seconds: float) -> Claim | Existing:
    """Take the conversation for a new run, or name the run that already answers this message.

    Raises NotFound; Busy when another message is being answered; Conflict when the message's id is known with
    other content; Ending and Expired, after which the caller waits or recovers and asks again.
    """
    with transaction.atomic():
        conversation = _raise_epoch(conversation_id)
        known = conversation.messages.filter(client_id=turn.message.id).first()
        if existing := _existing(conversation, known, turn):
            transaction.set_rollback(True)  # the epoch belongs to the run that is at work
            return existing
        asked = known or _add_user_message(conversation, turn.message)
        run = Run.objects.create(
            conversation=conversation,
            state=Run.State.RUNNING,
            trigger=turn.trigger,
            message=asked,
            options=dict(turn.options),
            epoch=conversation.epoch,
            start_offset=conversation.offset,
        )
        _mine(run.pk, conversation.epoch).update(holder=holder, lease_expires_at=_in(lease_seconds))
        return _claimed(conversation, run, asked)


def _claimed(conversation: Conversation, run: Run, asked: Message) -> Claim:
    before = conversation.messages.visible().filter(position__lt=asked.position)
    messages = (*(row.value() for row in before), asked.value())
    replaces = conversation.messages.visible().filter(position__gt=asked.position).exists()
    return Claim(
        conversation_id=conversation.pk,
        stream_path=conversation.stream_path,
        run_id=run.pk,
        epoch=conversation.epoch,
        offset=conversation.offset,
        messages=messages,
        opening=opening(messages, echoed=asked.visible, replaces=replaces),
    )


def _existing(conversation: Conversation, known: Message | None, turn: Turn) -> Existing | None:
    """The rule of idempotence by the user message's id; None when a new run may begin."""
    active: Any = conversation.runs.active().annotate(expired=_expired()).first()
    if active is not None and active.expired:
        raise Expired(active.pk)
    if known is not None and turn.trigger != "regenerate" and _differs(known, turn.message):
        raise Conflict(
            "This conversation has another message with this id: send the new text under a new id."
        )
    same = active is not None and known is not None and active.message_id == known.pk
    if active is not None and active.state == Run.State.ENDING and not (same and turn.trigger == "submit"):
        # To attach would be to wait for a terminal chunk that may already have gone by.
        raise Ending(active.pk)
    if active is not None and same:
        return Existing(active.pk)
    if active is not None:
        raise Busy("An answer is being written: wait for it or stop it, then send again.", run_id=active.pk)
    if known is not None and turn.trigger == "submit":
        last = known.answers.order_by("-created_at").first()
        return Existing(last.pk) if last else None
    return None


def _differs(known: Message, message: Turned) -> bool:
    return (known.role, tuple(known.parts)) != (message.role, message.parts)


def _add_user_message(conversation: Conversation, message: Turned) -> Message:
    """Not visible before its echo is in the stream."""
    row: Message = conversation.messages.create(
        client_id=message.id,
        role=message.role,
        parts=list(message.parts),
        metadata=dict(message.metadata),
        position=_next_position(conversation),
        visible=False,
    )
    return row


def accepted(claim: Claim, offset: str) -> None:
    """The stream says what was asked, up to `offset`: show it, and hide what the answer will replace.

    Raises Fenced.
    """
    with transaction.atomic():
        _advance(claim, offset)
        asked = Message.objects.filter(answers=claim.run_id).get()
        later = Message.objects.filter(conversation_id=claim.conversation_id, position__gt=asked.position)
        later.update(visible=False)
        Message.objects.filter(pk=asked.pk).update(visible=True)


def end(claim: Claim) -> None:
    """The terminal chunk is about to be written. Raises Fenced."""
    if not _mine(claim.run_id, claim.epoch).update(state=Run.State.ENDING):
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
    """This process gives up: let the lease expire now, so that whoever comes next recovers the run."""
    _mine(claim.run_id, claim.epoch).update(lease_expires_at=_in(-1))


def beat(run_ids: Iterable[str], *, holder: str, lease_seconds: float) -> tuple[set[str], set[str]]:
    """Renew the leases of these runs: (those that are still the holder's, those that are asked to stop)."""
    mine = Run.objects.active().filter(pk__in=list(run_ids), holder=holder)
    mine.update(lease_expires_at=_in(lease_seconds))
    flags = dict(mine.values_list("pk", "stop_requested"))
    return set(flags), {run_id for run_id, stop in flags.items() if stop}


def request_stop(conversation_id: str) -> str | None:
    """Ask the conversation's active run to stop; its id, or None when there is none."""
    active = Run.objects.active().filter(conversation_id=conversation_id)
    active.update(stop_requested=True)
    return active.values_list("pk", flat=True).first()


def take_over(run_id: str, *, holder: str, lease_seconds: float) -> Claim | None:
    """The next epoch for whoever recovers a run whose lease has expired; None when there is none."""
    with transaction.atomic():
        # The conversation before its run, as everywhere: two orders of locks would be a deadlock.
        if not Conversation.objects.filter(runs=run_id).update(epoch=F("epoch") + 1):
            return None
        conversation = Conversation.objects.get(runs=run_id)
        expired = Run.objects.active().filter(is_expired(), pk=run_id)
        # This write decides between two recoverers: the second finds the lease renewed.
        if not expired.update(holder=holder, lease_expires_at=_in(lease_seconds), epoch=conversation.epoch):
            transaction.set_rollback(True)
            return None
        return Claim(
            conversation_id=conversation.pk,
            stream_path=conversation.stream_path,
            run_id=run_id,
            epoch=conversation.epoch,
            offset=conversation.offset,
            messages=tuple(row.value() for row in conversation.messages.visible()),
        )


def repair(
    claim: Claim, state: Run.State, offset: str, *, messages: Sequence[Turned], notice: str = ""
) -> None:
    """Make the rows what the stream says: `messages` is its fold up to `offset`. Raises Fenced.

    A user message that never reached the stream is forgotten, so that sending it again is a first time.
    """
    with transaction.atomic():
        _advance(claim, offset)
        rows = Message.objects.filter(conversation_id=claim.conversation_id)
        said = [message.id for message in messages]
        rows.filter(answers=claim.run_id, visible=False).exclude(client_id__in=said).delete()
        rows.filter(visible=True).exclude(client_id__in=said).update(visible=False)
        rows.filter(client_id__in=said).update(visible=True)
        _add_answers(claim, messages)
        error = "The process that wrote this answer died; its lease expired."
        _ended(claim, state, offset, notice=notice, error=error)


def _add_answers(claim: Claim, messages: Sequence[Turned]) -> None:
    """Rows for those of `messages` that have none yet."""
    conversation = Conversation.objects.get(pk=claim.conversation_id)
    known = set(conversation.messages.values_list("client_id", flat=True))
    first = _next_position(conversation)
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


def _raise_epoch(conversation_id: str) -> Conversation:
    """The first write of a transaction: it takes the lock that the reads after it rely on."""
    if not Conversation.objects.filter(pk=conversation_id).update(epoch=F("epoch") + 1):
        raise NotFound("There is no such conversation.")
    conversation: Conversation = Conversation.objects.get(pk=conversation_id)
    return conversation


def _advance(claim: Claim, offset: str) -> None:
    held = Conversation.objects.filter(pk=claim.conversation_id, epoch=claim.epoch)
    if not held.update(offset=offset, updated_at=Now()):
        raise Fenced


def _ended(claim: Claim, state: Run.State, offset: str, **told: Any) -> None:
    _mine(claim.run_id, claim.epoch).update(
        state=state, end_offset=offset, lease_expires_at=None, ended_at=Now(), **told
    )


def _mine(run_id: str, epoch: int) -> "QuerySet[Run]":
    mine: QuerySet[Run] = Run.objects.active().filter(pk=run_id, epoch=epoch)
    return mine


def _next_position(conversation: Conversation) -> int:
    last = conversation.messages.aggregate(last=Max("position"))["last"]
    return 0 if last is None else last + 1


def _in(seconds: float) -> "ExpressionWrapper[Any]":
    """A moment in the database's clock, which all processes share."""
    delta = Value(timedelta(seconds=seconds), DurationField())
    return ExpressionWrapper(Now() + delta, output_field=DateTimeField())


def is_expired() -> Q:
    """Of runs: the process that held this one has let its lease run out."""
    return Q(lease_expires_at__lt=Now())


def _expired() -> "ExpressionWrapper[Any]":
    return ExpressionWrapper(is_expired(), output_field=BooleanField())
