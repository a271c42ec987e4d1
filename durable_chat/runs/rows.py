"""What the transactions of runs are made of: the first write, whose run it is, the database's clock."""

from datetime import timedelta
from typing import Any

from django.db.models import (
    DateTimeField,
    DurationField,
    Exists,
    ExpressionWrapper,
    F,
    Max,
    OuterRef,
    Q,
    Value,
)
from django.db.models.functions import Now
from django.db.models.query import QuerySet

from durable_chat import conf
from durable_chat.models import Conversation, Run


def lock(conversation_id: str) -> Conversation | None:
    """The conversation, or None; the first write of a transaction, for the reads after it to rely on.

    The conversation before its runs and messages, everywhere: two orders of locks would be a deadlock.
    """
    named = Conversation.objects.filter(pk=conversation_id)
    return named.get() if named.update(epoch=F("epoch")) else None


def raise_epoch(conversation: Conversation) -> None:
    """Fence whoever wrote the stream of this locked conversation so far."""
    conversation.epoch += 1
    Conversation.objects.filter(pk=conversation.pk).update(epoch=conversation.epoch)


def held(run_id: str, epoch: int) -> "QuerySet[Run]":
    """The run, while nobody has taken a later epoch."""
    mine: QuerySet[Run] = Run.objects.active().filter(pk=run_id, epoch=epoch)
    return mine


def next_position(conversation: Conversation) -> int:
    """Behind every message of a locked conversation."""
    last = conversation.messages.aggregate(last=Max("position"))["last"]
    return 0 if last is None else last + 1


def from_now(seconds: float) -> "ExpressionWrapper[Any]":
    """A moment in the database's clock, which all processes share."""
    delta = Value(timedelta(seconds=seconds), DurationField())
    return ExpressionWrapper(Now() + delta, output_field=DateTimeField())


def is_due() -> Q:
    """Of active runs: nobody will end this one unless whoever finds it does.

    The process that held it has let its lease run out, or it is to stop before a worker has begun it.
    """
    return Q(lease_expires_at__lt=Now()) | Q(state=Run.State.ACCEPTED, stop_requested=True)


def is_overdue() -> Q:
    """Of runs: it waits for a worker for so long that its task may have been lost."""
    since = from_now(-conf.get().tasks.again_seconds)
    return Q(state=Run.State.ACCEPTED, asked_at__lt=since)


def unattended() -> "QuerySet[Run]":
    """Runs that need somebody.

    They are due, or wait for a worker for too long, or in a conversation that is free, or are withdrawn.
    """
    busy = Run.objects.active().filter(conversation=OuterRef("conversation"))
    waits = Q(state=Run.State.QUEUED) & (Q(stop_requested=True) | ~Exists(busy))
    runs: QuerySet[Run] = Run.objects.filter(is_due() | is_overdue() | waits, state__in=Run.UNFINISHED)
    return runs


def is_unattended(conversation_id: str) -> bool:
    """Whether one of its runs needs somebody: a dear question, and most have no run to ask it of."""
    unfinished = Run.objects.filter(conversation=conversation_id, state__in=Run.UNFINISHED)
    return unfinished.exists() and unattended().filter(conversation=conversation_id).exists()
