"""Share a conversation: who else may read it, or write in it. For whoever may `share`."""

from typing import Any

from django.contrib.auth import get_user_model
from django.http import HttpRequest, HttpResponse

from durable_chat.connections import in_database
from durable_chat.exceptions import BadInput, Conflict, NotFound, SignInRequired
from durable_chat.models import Conversation, Member
from durable_chat.permissions import name_of, visitor_of
from durable_chat.views.base import ConversationView, authorise, empty_response, json_body, json_response

NOBODY = "There is nobody of that name."


class SharingView(ConversationView):
    """Users are named by their username, here as in the answers: `{user, name, role}`.

    Only who is signed in may look for others by name.
    """

    async def shared(self, conversation_id: str) -> Conversation:
        """The conversation, if this visitor may share it. Raises NotFound, SignInRequired."""
        visitor = await in_database(visitor_of, self.request)
        conversation = await authorise(visitor, conversation_id, "share")
        if visitor.user_id is None:
            raise SignInRequired("Sign in to share a conversation.")
        return conversation


class MembersView(SharingView):
    """`GET/POST api/conversations/<id>/members`."""

    wrong_method = "GET lists the members, POST adds one."

    async def get(self, request: HttpRequest, conversation_id: str) -> HttpResponse:
        """`{members: [{user, name, role}]}`, in the order in which they came."""
        conversation = await self.shared(conversation_id)

        def listed() -> list[dict[str, Any]]:
            return [_described(member) for member in conversation.memberships.select_related("user")]

        return json_response({"members": await in_database(listed)})

    async def post(self, request: HttpRequest, conversation_id: str) -> HttpResponse:
        """Let in `{user, role?}`, a reader unless the role says otherwise: 201, or 200 for a known member."""
        conversation = await self.shared(conversation_id)
        body = json_body(request)
        username, role = body.get("user"), _role(body, default=Member.Role.READER)
        if not isinstance(username, str) or not username or not username.isprintable():
            raise BadInput('"user" must be the username of whom you let in.')
        member, created = await in_database(_let_in, conversation, username, role)
        return json_response(member, status=201 if created else 200)


class OneMemberView(SharingView):
    """`PATCH/DELETE api/conversations/<id>/members/<username>`."""

    wrong_method = "PATCH changes a member's role, DELETE removes them."

    async def patch(self, request: HttpRequest, conversation_id: str, username: str) -> HttpResponse:
        """Change `{role}`."""
        conversation = await self.shared(conversation_id)
        role = _role(json_body(request))

        def change() -> dict[str, Any]:
            member: Member | None = _members(conversation, username).select_related("user").first()
            if member is None:
                raise NotFound(NOBODY)
            member.role = role
            member.save(update_fields=["role"])
            return _described(member)

        return json_response(await in_database(change))

    async def delete(self, request: HttpRequest, conversation_id: str, username: str) -> HttpResponse:
        """Show them out; 204. What they are reading at the moment ends within REAUTHORISE_SECONDS."""
        conversation = await self.shared(conversation_id)
        removed, _ = await in_database(_members(conversation, username).delete)
        if not removed:
            raise NotFound(NOBODY)
        return empty_response(204)


def _let_in(conversation: Conversation, username: str, role: str) -> tuple[dict[str, Any], bool]:
    user_model: Any = get_user_model()
    try:
        user = user_model._default_manager.get_by_natural_key(username)
    except user_model.DoesNotExist:
        user = None
    if user is None or not user.is_active:
        raise NotFound(NOBODY)
    if user.pk == conversation.owner_id:
        raise Conflict("The owner needs no membership.")
    member, created = Member.objects.update_or_create(
        conversation=conversation, user=user, defaults={"role": role}
    )
    return _described(member), created


def _members(conversation: Conversation, username: str) -> Any:
    """Raises NotFound for what is no username, such as a NUL, which PostgreSQL refuses to look for."""
    if not username.isprintable():
        raise NotFound(NOBODY)
    named = f"user__{get_user_model().USERNAME_FIELD}"
    return conversation.memberships.filter(**{named: username})


def _role(body: dict[str, Any], *, default: str | None = None) -> str:
    role = body.get("role", default)
    if role not in Member.Role.values:
        raise BadInput(f'"role" must be one of {", ".join(Member.Role.values)}.')
    return str(role)


def _described(member: Member) -> dict[str, Any]:
    user: Any = member.user
    return {"user": user.get_username(), "name": name_of(user), "role": member.role}
