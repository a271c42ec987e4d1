"""The right to write a conversation's stream: taken for a run that begins, or from one whose process died."""

from dataclasses import dataclass

from django.db import transaction

from durable_chat.answers import opening
from durable_chat.chunks import Chunk
from durable_chat.messages import Message as Turned
from durable_chat.models import Conversation, Message, Run
from durable_chat.runs.rows import from_now, is_expired, lock_of, raise_epoch


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


class Fenced(Exception):
    """Somebody else has taken the conversation over: stop, and write nothing more anywhere."""


def begin(conversation: Conversation, run: Run, *, holder: str, lease_seconds: float) -> Claim:
    """Take a locked conversation, in which nothing is active, for a run that has not begun."""
    raise_epoch(conversation)
    Run.objects.filter(pk=run.pk).update(
        state=Run.State.RUNNING,
        epoch=conversation.epoch,
        start_offset=conversation.offset,
        holder=holder,
        lease_expires_at=from_now(lease_seconds),
    )
    asked: Message = run.message  # type: ignore[assignment]  # a run that has not begun has one
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


def take_over(run_id: str, *, holder: str, lease_seconds: float) -> Claim | None:
    """The next epoch for whoever recovers a run whose lease has expired; None when there is none."""
    with transaction.atomic():
        conversation = lock_of(run_id)
        # Of two recoverers, the second finds the lease renewed.
        expired = Run.objects.active().filter(is_expired(), pk=run_id)
        if conversation is None or not expired.update(
            holder=holder, lease_expires_at=from_now(lease_seconds), epoch=conversation.epoch + 1
        ):
            return None
        raise_epoch(conversation)
        return Claim(
            conversation_id=conversation.pk,
            stream_path=conversation.stream_path,
            run_id=run_id,
            epoch=conversation.epoch,
            offset=conversation.offset,
            messages=tuple(row.value() for row in conversation.messages.visible()),
        )
