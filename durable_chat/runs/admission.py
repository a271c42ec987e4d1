"""What a send meets: a free conversation, a busy one, or the run that answers its message already."""

from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import BooleanField, ExpressionWrapper

from durable_chat.exceptions import Busy, Conflict, NotFound
from durable_chat.messages import Message as Turned
from durable_chat.messages import Turn
from durable_chat.models import Conversation, Message, Run
from durable_chat.runs.claim import Claim, begin
from durable_chat.runs.rows import is_expired, lock, next_position


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


def admit(conversation_id: str, turn: Turn, *, holder: str, lease_seconds: float) -> Claim | Existing:
    """Take the conversation for a new run, or name the run that already answers this message.

    Raises NotFound; Busy when another message is being answered; Conflict when the message's id is known with
    other content; Ending and Expired, after which the caller waits or recovers and asks again.
    """
    with transaction.atomic():
        conversation = lock(conversation_id)
        if conversation is None:
            raise NotFound("There is no such conversation.")
        known = conversation.messages.filter(client_id=turn.message.id).first()
        if existing := _existing(conversation, known, turn):
            return existing
        asked = known or _add_user_message(conversation, turn)
        run = Run.objects.create(
            conversation=conversation, trigger=turn.trigger, message=asked, options=dict(turn.options)
        )
        return begin(conversation, run, holder=holder, lease_seconds=lease_seconds)


_EXPIRED = ExpressionWrapper(is_expired(), output_field=BooleanField())


def _existing(conversation: Conversation, known: Message | None, turn: Turn) -> Existing | None:
    """The rule of idempotence by the user message's id; None when a new run may begin."""
    active: Any = conversation.runs.active().annotate(expired=_EXPIRED).first()
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


def _add_user_message(conversation: Conversation, turn: Turn) -> Message:
    """Not visible before its echo is in the stream."""
    message = turn.message
    row: Message = conversation.messages.create(
        client_id=message.id,
        role=message.role,
        author_id=turn.author.id if turn.author else None,
        parts=list(message.parts),
        metadata=dict(message.metadata),
        position=next_position(conversation),
        visible=False,
    )
    return row
