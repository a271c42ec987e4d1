"""List, create, hydrate, rename and delete conversations."""

from typing import Any

from asgiref.sync import sync_to_async
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse

from durable_chat import dialects, snapshot
from durable_chat.connections import in_database
from durable_chat.dialects.base import options
from durable_chat.exceptions import BadInput, Conflict, NotFound, SignInRequired
from durable_chat.models import Conversation, Visitor, new_id
from durable_chat.permissions import visitor_of
from durable_chat.views.base import (
    UNKNOWN,
    ApiView,
    ConversationView,
    checked_id,
    empty_response,
    json_body,
    json_response,
)

LISTED = 200


class ConversationsView(ApiView):
    """`GET/POST api/conversations`."""

    wrong_method = "GET lists your conversations, POST creates one."

    async def get(self, request: HttpRequest) -> HttpResponse:
        """What the visitor owns or is a member of, newest first."""

        def own() -> list[dict[str, Any]]:
            visible = Conversation.objects.visible_to(visitor_of(request))
            return [_described(conversation) for conversation in visible[:LISTED]]

        return json_response({"conversations": await in_database(own)})

    async def post(self, request: HttpRequest) -> HttpResponse:
        """Create `{id?, title?, metadata?}`; 201. The stream exists when this returns."""
        body = json_body(request)
        wanted = checked_id(body["id"]) if body.get("id") is not None else new_id()
        fields = _fields(body)

        def create() -> Conversation:
            return create_conversation(wanted, visitor_of(request, create=True), **fields)

        return json_response(_described(await sync_to_async(create)()), status=201)


class OneConversationView(ConversationView):
    """`GET/PATCH/DELETE api/conversations/<id>`."""

    wrong_method = "GET hydrates a conversation, PATCH renames it, DELETE erases it."

    async def get(self, request: HttpRequest, conversation_id: str) -> HttpResponse:
        """Messages and the offset that they reach: what a client seeds itself with."""
        dialect = dialects.named(request.GET.get("as") or "tanstack")
        await self.authorise(conversation_id, "read")
        stored = isinstance(dialect, dialects.TanStack)
        taken: snapshot.Snapshot[Any] | None = await in_database(
            snapshot.take_stored if stored else snapshot.take, conversation_id
        )
        if taken is None:
            raise NotFound(UNKNOWN)
        return json_response(
            {
                "id": taken.id,
                "title": taken.title,
                "metadata": taken.metadata,
                "createdAt": taken.created_at,
                "updatedAt": taken.updated_at,
                "messages": taken.messages if stored else dialect.messages(taken.messages),
                "offset": taken.offset,
                "activeRun": {"runId": taken.active_run} if taken.active_run else None,
                "queued": [
                    {"runId": waiting.run_id, "message": dialect.messages([waiting.message])[0]}
                    for waiting in taken.queued
                ],
                "interrupts": None,
                "failure": {"runId": taken.failure.run_id, "error": taken.failure.text}
                if taken.failure
                else None,
            }
        )

    async def patch(self, request: HttpRequest, conversation_id: str) -> HttpResponse:
        """Change title and metadata."""
        fields = _fields(json_body(request))
        conversation = await self.authorise(conversation_id, "send")
        row = Conversation.objects.filter(pk=conversation.pk)
        if not await in_database(row.update, **fields, updated_at=Now()):
            raise NotFound(UNKNOWN)
        return json_response(_described(await in_database(row.get)))

    async def delete(self, request: HttpRequest, conversation_id: str) -> HttpResponse:
        """Stop the run, erase the rows and the stream; 204."""
        conversation = await self.authorise(conversation_id, "delete")
        await sync_to_async(conversation.delete)()
        return empty_response(204)


def create_conversation(wanted: str, visitor: Visitor, **fields: Any) -> Conversation:
    """A new conversation of this visitor.

    An id that is taken is refused to its owner; somebody else gets a fresh one, and so does not learn that it
    was taken. Raises Conflict, and SignInRequired for nobody.
    """
    if visitor == Visitor():
        raise SignInRequired("Sign in to begin a conversation: this site keeps no sessions for visitors.")
    owned = {"owner_id": visitor.user_id, "visitor": "" if visitor.user_id else visitor.anonymous_id}
    try:
        return _created(id=wanted, **owned, **fields)
    except IntegrityError:
        if Conversation.objects.visible_to(visitor).filter(pk=wanted).exists():
            raise Conflict("You already have a conversation with this id.") from None
        return _created(id=new_id(), **owned, **fields)


def _created(**values: Any) -> Conversation:
    conversation = Conversation(**values)
    conversation.name_stream()  # reads; the transaction must begin with its write
    with transaction.atomic():
        conversation.save(force_insert=True)
    return conversation


def _fields(body: dict[str, Any]) -> dict[str, Any]:
    """Title and metadata of a body. Raises BadInput, TooLarge."""
    body = options({name: body[name] for name in ("title", "metadata") if name in body})
    title, metadata = body.get("title", ""), body.get("metadata", {})
    if not isinstance(title, str) or len(title) > 200:
        raise BadInput('"title" must be a text of at most 200 characters.')
    if not isinstance(metadata, dict):
        raise BadInput('"metadata" must be an object.')
    return {name: value for name, value in (("title", title), ("metadata", metadata)) if name in body}


def _described(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": conversation.pk,
        "title": conversation.title,
        "metadata": conversation.metadata,
        "createdAt": conversation.created_at,
        "updatedAt": conversation.updated_at,
    }
