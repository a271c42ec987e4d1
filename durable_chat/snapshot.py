"""Hydration: the messages of a conversation and the offset they reach, in one statement, never the stream."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import FilteredRelation, OuterRef, Q, Subquery

from durable_chat.connections import in_database
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


@dataclass(frozen=True, slots=True)
class Failure:
    """How the last answer ended, if not well: what its readers were told."""

    run_id: str
    stopped: bool
    text: str


def take(conversation_id: str) -> Snapshot | None:
    """The snapshot, or None when there is no such conversation.

    One SELECT, because two would see two moments: an offset and the messages of the next one.
    """
    active = Run.objects.active().filter(conversation=OuterRef("pk")).values("id")[:1]
    last = Run.objects.filter(conversation=OuterRef("pk")).order_by("-created_at", "-pk")
    rows = list(
        Conversation.objects.filter(pk=conversation_id)
        .annotate(
            shown=FilteredRelation("messages", condition=Q(messages__visible=True)),
            active_run=Subquery(active),
            last_run=Subquery(last.values("pk")[:1]),
            last_state=Subquery(last.values("state")[:1]),
            last_notice=Subquery(last.values("notice")[:1]),
        )
        .order_by("shown__position")
        .values_list(
            *("title", "metadata", "created_at", "updated_at", "offset", "active_run"),
            *("last_run", "last_state", "last_notice"),
            *("shown__client_id", "shown__role", "shown__parts", "shown__metadata", "shown__created_at"),
        )
    )
    if not rows:
        return None
    title, metadata, created_at, updated_at, offset, active_run, last_run, state, notice = rows[0][:9]
    messages = tuple(
        Message(id=id, role=role, parts=tuple(parts), metadata=extra, created_at=at)
        for id, role, parts, extra, at in (row[9:] for row in rows)
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
        offset=offset,
        active_run=active_run,
        failure=Failure(last_run, state == Run.State.STOPPED, notice) if failed else None,
    )


async def atake(conversation_id: str) -> Snapshot | None:
    """`take` for async callers."""
    return await in_database(take, conversation_id)
