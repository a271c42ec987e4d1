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


def take(conversation_id: str) -> Snapshot | None:
    """The snapshot, or None when there is no such conversation.

    One SELECT, because two would see two moments: an offset and the messages of the next one.
    """
    active = Run.objects.active().filter(conversation=OuterRef("pk")).values("id")[:1]
    rows = list(
        Conversation.objects.filter(pk=conversation_id)
        .annotate(
            shown=FilteredRelation("messages", condition=Q(messages__visible=True)),
            active_run=Subquery(active),
        )
        .order_by("shown__position")
        .values_list(
            *("title", "metadata", "created_at", "updated_at", "offset", "active_run"),
            *("shown__client_id", "shown__role", "shown__parts", "shown__metadata", "shown__created_at"),
        )
    )
    if not rows:
        return None
    title, metadata, created_at, updated_at, offset, active_run = rows[0][:6]
    messages = tuple(
        Message(id=row[6], role=row[7], parts=tuple(row[8]), metadata=row[9], created_at=row[10])
        for row in rows
        if row[6] is not None
    )
    return Snapshot(
        id=conversation_id,
        title=title,
        metadata=metadata,
        created_at=created_at,
        updated_at=updated_at,
        messages=messages,
        offset=offset,
        active_run=active_run,
    )


async def atake(conversation_id: str) -> Snapshot | None:
    """`take` for async callers."""
    return await in_database(take, conversation_id)
