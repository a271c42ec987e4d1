"""Hydration: the messages of a conversation and the offset they reach, in one statement, never the stream."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import orjson
from django.db import connection
from django.db.models import F, Subquery, TextField, Value
from django.db.models.functions import Cast, JSONObject
from django.db.models.query import QuerySet

from durable_chat import models
from durable_chat.chunks import Decoder
from durable_chat.connections import in_database
from durable_chat.marks import mark_of, outward
from durable_chat.messages import Message
from durable_chat.models import Conversation, Run

M = TypeVar("M")

_NO_METADATA: Final = frozenset({"{}", "null"})


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[M]):
    """A conversation as of `offset`: a reader seeded with both misses nothing and doubles nothing."""

    id: str
    title: str
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    messages: tuple[M, ...]
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


def take(conversation_id: str) -> Snapshot[Message] | None:
    """The snapshot, or None when there is no such conversation."""
    return _taken(conversation_id, _value)


async def atake(conversation_id: str) -> Snapshot[Message] | None:
    """`take` for async callers."""
    return await in_database(take, conversation_id)


def take_stored(conversation_id: str) -> Snapshot[dict[str, Any]] | None:
    """The same for `orjson.dumps`: each message as its `as_json` says, of the JSON that the row holds.

    To read it and to write it anew would be most of what a long conversation costs.
    """
    return _taken(conversation_id, _stored)


def _taken(conversation_id: str, message: Callable[[str, str, str, str, datetime], M]) -> Snapshot[M] | None:
    """One SELECT, because two would see two moments: an offset and the messages of the next one.

    What waits is looked up after it: a message that begins in between is in neither, and comes by the stream.
    """
    rows = list(_said(conversation_id).union(_about(conversation_id), all=True).order_by("place"))
    if not rows:
        return None
    zone = connection.timezone

    def at(text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=zone)  # which the database writes it in

    _, title, path, offset, metadata, created_at, updated_at, active_run, waits, last = rows[0]
    ended = _read(last) if last and active_run is None else {}
    return Snapshot(
        id=conversation_id,
        title=title,
        metadata=_read(metadata),
        created_at=at(created_at),
        updated_at=at(updated_at),
        messages=tuple(
            message(id, role, parts, metadata, at(created_at))
            for _, id, role, parts, metadata, created_at, *_ in rows[1:]
        ),
        offset=outward(mark_of(conversation_id, path), offset),
        active_run=active_run,
        failure=_failure(**ended) if ended.get("notice") else None,
        queued=_line(conversation_id) if waits else (),
    )


def _about(conversation_id: str) -> "QuerySet[Any, Any]":
    """The conversation: a row like its messages', before them all, and then what it alone has.

    Nothing in it refers to an outer row, so that its runs are looked up once and not for each message.
    """
    runs = Run.objects.filter(conversation=conversation_id)
    last = runs.exclude(state=Run.State.QUEUED).exclude(epoch=0).order_by("-created_at", "-pk")
    told = JSONObject(run_id="pk", state="state", notice="notice")
    found: QuerySet[Any, Any] = Conversation.objects.filter(pk=conversation_id).annotate(place=Value(-1))
    return found.order_by().values_list(
        *("place", "title", "stream_path", _text("offset"), _text("metadata")),
        *(_text("created_at"), _text("updated_at")),
        *(Subquery(some.values("pk")[:1]) for some in (runs.active(), runs.queued())),
        Subquery(last.values_list(Cast(told, TextField()))[:1]),
    )


def _said(conversation_id: str) -> "QuerySet[Any, Any]":
    """The messages: a row each, as long as the conversation's."""
    visible = models.Message.objects.visible().filter(conversation=conversation_id)
    said: QuerySet[Any, Any] = visible.annotate(place=F("position"))
    return said.order_by().values_list(
        *("place", "client_id", "role", _text("parts"), _text("metadata"), _text("created_at")),
        *[Value(None, TextField())] * 4,
    )


def _text(name: str) -> Cast:
    """A column as the database writes it: of what Django does to thousands of values, none is needed here."""
    return Cast(name, TextField())


def _failure(run_id: str, state: str, notice: str) -> Failure:
    return Failure(run_id, state == Run.State.STOPPED, notice)


def _read(text: str) -> Any:
    return json.loads(text, cls=Decoder)


def _value(id: str, role: str, parts: str, metadata: str, at: datetime) -> Message:
    return Message(id, role, tuple(_read(parts)), _read(metadata), at)


def _stored(id: str, role: str, parts: str, metadata: str, at: datetime) -> dict[str, Any]:
    message = {"id": id, "role": role, "parts": orjson.Fragment(parts), "createdAt": at}
    return message if metadata in _NO_METADATA else {**message, "metadata": orjson.Fragment(metadata)}


def _line(conversation_id: str) -> tuple[Waiting, ...]:
    line = Run.objects.queued().filter(conversation=conversation_id, stop_requested=False)
    runs = line.select_related("message").order_by("place")
    return tuple(Waiting(run.pk, run.message.value()) for run in runs if run.message is not None)
