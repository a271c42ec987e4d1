"""The right to write a conversation's stream: taken for a run that begins, or from one whose process died."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction

from durable_chat.answers import opening
from durable_chat.chunks import Chunk
from durable_chat.messages import Message as Turned
from durable_chat.models import Conversation, Message, Run
from durable_chat.runs.rows import from_now, is_due, lock, raise_epoch


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write one conversation's stream: an epoch, until somebody takes the next one.

    `offset` is where the conversation's rows stand (see Conversation); `messages` are the visible ones,
    ending with the user's; `shown` are those of them that the rows show so far; `opening` is what the stream
    must say before the answer begins. `stopping` is a run that was asked to stop; `queued` one that waited,
    and goes back to the line if it never began; `accepted` one whose readers have been told of it.
    """

    conversation_id: str
    stream_path: str
    run_id: str
    epoch: int
    offset: str
    messages: tuple[Turned, ...]
    shown: tuple[Turned, ...] = ()
    opening: tuple[Chunk, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    stopping: bool = False
    queued: bool = False
    accepted: bool = False


class Fenced(Exception):
    """Somebody else has taken the conversation over: stop, and write nothing more anywhere."""


def begin(
    conversation: Conversation, run: Run, asked: Message, *, holder: str, lease_seconds: float
) -> Claim:
    """Take a locked conversation, in which nothing is active, for a run, new or not, that answers `asked`."""
    raise_epoch(conversation)
    taken = {
        "state": Run.State.RUNNING,
        "epoch": conversation.epoch,
        "start_offset": conversation.offset,
        "holder": holder,
        "lease_expires_at": from_now(lease_seconds),
    }
    for name, value in taken.items():
        setattr(run, name, value)
    new = run._state.adding
    run.save(force_insert=new, update_fields=None if new else taken)
    others = [each for each in conversation.messages.visible().placed() if each[0] != asked.position]
    before = [message for position, message in others if position < asked.position]
    messages = (*before, asked.value())
    return _claimed(
        conversation,
        run,
        messages,
        shown=messages if asked.visible else messages[:-1],
        opening=opening(messages, echoed=asked.visible, replaces=len(before) < len(others)),
    )


def take_up(run_id: str, *, holder: str, lease_seconds: float) -> Claim | None:
    """The next epoch for whoever writes the answer of an accepted run; None when it is no longer waiting."""
    named = Run.objects.filter(pk=run_id, state=Run.State.ACCEPTED)
    waiting = named.first()
    if waiting is None:
        return None  # delivered twice, or stopped before it began
    with transaction.atomic():
        conversation = lock(waiting.conversation_id)
        run = named.first()
        if conversation is None or run is None:
            return None
        raise_epoch(conversation)
        named.update(
            state=Run.State.RUNNING,
            epoch=conversation.epoch,
            holder=holder,
            lease_expires_at=from_now(lease_seconds),
        )
        return _claimed(conversation, run, _visible(conversation), accepted=True)


def take_over(conversation_id: str, *, holder: str, lease_seconds: float) -> Claim | None:
    """The next epoch for whoever finishes the run that nobody writes any more; None when there is none."""
    with transaction.atomic():
        conversation = lock(conversation_id)
        due = Run.objects.active().filter(is_due(), conversation=conversation_id)
        run = due.first()
        if conversation is None or run is None:
            return None
        raise_epoch(conversation)
        # Of two recoverers, the second finds the lease renewed.
        due.update(
            state=Run.State.ENDING,
            holder=holder,
            lease_expires_at=from_now(lease_seconds),
            epoch=conversation.epoch,
        )
        return _claimed(conversation, run, _visible(conversation))


def _claimed(conversation: Conversation, run: Run, messages: tuple[Turned, ...], **more: Any) -> Claim:
    return Claim(
        conversation_id=conversation.pk,
        stream_path=conversation.stream_path,
        run_id=run.pk,
        epoch=conversation.epoch,
        offset=conversation.offset,
        messages=messages,
        options=run.options,
        stopping=run.stop_requested,
        queued=run.place is not None,
        **more,
    )


def _visible(conversation: Conversation) -> tuple[Turned, ...]:
    return tuple(message for _, message in conversation.messages.visible().placed())
