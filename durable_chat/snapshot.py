"""Hydration: the messages of a conversation and the offset they reach, in one statement, never the stream."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Exists, FilteredRelation, OuterRef, Q, Subquery

from durable_chat.connections import in_database
from durable_chat.marks import mark_of, outward
from durable_chat.messages import Message
from durable_chat.models import Conversation, Run


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A conversation as of `offset`: a reader seeded with both misses nothing and doubles nothing."""

    id: str
    title: str
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    messages: tuple[Message, ...]
    offset: str
    active_run: str | None
    failure: "Failure | None" = None
    queued: "tuple[Waiting, ...]" = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """How the last answer ended, if not well: what its readers were told."""

    run_id: str
    stopped: bool
    text: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message whose turn has not come, and the run that will answer it."""

    run_id: str
    message: Message


def take(conversation_id: str) -> Snapshot | None:
    """The snapshot, or None when there is no such conversation.

    One SELECT, because two would see two moments: an offset and the messages of the next one. What waits is
    looked up after it: a message that begins in between is in neither, and comes by the stream.
    """
    active = Run.objects.active().filter(conversation=OuterRef("pk")).values("id")[:1]
    line = Run.objects.queued().filter(conversation=OuterRef("pk"))
    last = Run.objects.filter(conversation=OuterRef("pk")).order_by("-created_at", "-pk")
    last = last.exclude(state=Run.State.QUEUED).exclude(epoch=0)
    rows = list(
        Conversation.objects.filter(pk=conversation_id)
        .annotate(
            shown=FilteredRelation("messages", condition=Q(messages__visible=True)),
            active_run=Subquery(active),
            waits=Exists(line),
            last_run=Subquery(last.values("pk")[:1]),
            last_state=Subquery(last.values("state")[:1]),
            last_notice=Subquery(last.values("notice")[:1]),
        )
        .order_by("shown__position")
        .values_list(
            *("title", "metadata", "created_at", "updated_at", "offset", "stream_path"),
            *("active_run", "waits", "last_run", "last_state", "last_notice"),
            *("shown__client_id", "shown__role", "shown__parts", "shown__metadata", "shown__created_at"),
        )
    )
    if not rows:
        return None
    title, metadata, created_at, updated_at, offset, path = rows[0][:6]
    active_run, waits, last_run, state, notice = rows[0][6:11]
    messages = tuple(
        Message(id=id, role=role, parts=tuple(parts), metadata=extra, created_at=at)
        for id, role, parts, extra, at in (row[11:] for row in rows)
        if id is not None
    )
    failed = bool(notice) and active_run is None
    return Snapshot(
        id=conversation_id,
        title=title,
        metadata=metadata,
        created_at=created_at,
        updated_at=updated_at,
        messages=messages,
        offset=outward(mark_of(conversation_id, path), offset),
        active_run=active_run,
        failure=Failure(last_run, state == Run.State.STOPPED, notice) if failed else None,
        queued=_line(conversation_id) if waits else (),
    )


def _line(conversation_id: str) -> tuple[Waiting, ...]:
    line = Run.objects.queued().filter(conversation=conversation_id, stop_requested=False)
    runs = line.select_related("message").order_by("place")
    return tuple(Waiting(run.pk, run.message.value()) for run in runs if run.message is not None)


async def atake(conversation_id: str) -> Snapshot | None:
    """`take` for async callers."""
    return await in_database(take, conversation_id)
