"""A conversation whose stream is not there, or not whole: it gets another one, which begins with its rows."""

import logging
from collections.abc import Sequence

import orjson
from django.db import transaction

from durable_chat import backends
from durable_chat.answers import snapshot
from durable_chat.connections import in_database
from durable_chat.messages import Message
from durable_chat.models import Conversation, Run, Tombstone
from durable_chat.runs.rows import lock, raise_epoch
from durable_chat.streams.client import StreamClient
from durable_chat.streams.protocol.errors import StreamGone, StreamNotFound
from durable_chat.streams.protocol.offsets import START

log = logging.getLogger(__name__)


async def mend(conversation_id: str, *, seen: Conversation | None = None) -> None:
    """See to it that a conversation's stream is there, and holds all that its rows tell.

    A stream that is not there, or ends before the rows do, is lost: the site was moved to another service, or
    the service has lost it. While a run is at work nothing is done; it finds out by itself, and ends. Two who
    do this at once do it once, and who comes after one who died in it goes on with it. `seen` is the row, if
    the caller has just read it. Raises StreamError.
    """
    streams = backends.get_streams()
    place = (seen.stream_path, seen.offset) if seen else await in_database(_place, conversation_id)
    if place is None or not await _is_lost(streams, *place):
        return
    if place[1] != START:
        await in_database(_leave, conversation_id, place[0])
    await _begin(streams, conversation_id)


async def sow(streams: StreamClient, path: str, messages: Sequence[Message]) -> str:
    """Make the stream of rows that have no offset, unless it is there; its tail.

    It begins with what the rows show. Raises StreamError.
    """
    seed = orjson.dumps([snapshot(messages)]) if messages else b""
    return await streams.create(path, body=seed)


async def _is_lost(streams: StreamClient, path: str, offset: str) -> bool:
    try:
        return (await streams.head(path)).offset < offset  # offsets sort as text, START before all
    except (StreamNotFound, StreamGone):
        return True


async def _begin(streams: StreamClient, conversation_id: str) -> None:
    """Make the stream that rows without an offset wait for. It is theirs once they have its tail."""
    path, offset, messages = await in_database(_rows, conversation_id)
    if offset != START:
        return
    tail = await sow(streams, path, messages)
    if messages:
        unsown = Conversation.objects.filter(pk=conversation_id, stream_path=path, offset=START)
        await in_database(unsown.update, offset=tail)


def _place(conversation_id: str) -> tuple[str, str] | None:
    named = Conversation.objects.filter(pk=conversation_id)
    place: tuple[str, str] | None = named.values_list("stream_path", "offset").first()
    return place


def _rows(conversation_id: str) -> tuple[str, str, Sequence[Message]]:
    with transaction.atomic():
        conversation = lock(conversation_id)
        if conversation is None:
            raise StreamNotFound
        messages = [message for _, message in conversation.messages.visible().placed()]
        return conversation.stream_path, conversation.offset, messages


def _leave(conversation_id: str, path: str) -> None:
    """Name another path, and no offset, unless somebody else has or a run is at work."""
    with transaction.atomic():
        conversation = lock(conversation_id)
        if conversation is None or conversation.stream_path != path or conversation.runs.active().exists():
            return
        raise_epoch(conversation)
        Tombstone.objects.get_or_create(path=path)
        conversation.runs.exclude(state=Run.State.QUEUED).update(start_offset=Run.LOST, end_offset=Run.LOST)
        Conversation.objects.filter(pk=conversation_id).update(
            stream_path=conversation.another_path(), offset=START
        )
    log.warning("the stream of %s is lost: another one begins with its messages", conversation_id)
