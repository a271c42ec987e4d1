"""The third gate, user to conversation: who asks, and whether they may. Deny first; strangers get 404."""

import secrets
from collections.abc import Awaitable, Mapping
from typing import Any, Final, Literal, Protocol

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest

from durable_chat.models import Conversation, Member, Visitor

SESSION_KEY = "durable_chat_visitor"

Action = Literal["read", "send", "stop", "share", "delete"]

GRANTED: Final[Mapping[str, frozenset[Action]]] = {
    Member.Role.READER: frozenset({"read"}),
    Member.Role.WRITER: frozenset({"read", "send", "stop"}),
}


class Permission(Protocol):
    """What the setting `PERMISSION` names: a plain function, or an async one. Only `True` admits.

    A plain one is called off the loop and may use the database; an async one is awaited.
    """

    def __call__(
        self, visitor: Visitor, conversation: Conversation, action: Action
    ) -> bool | Awaitable[bool]: ...


def may(visitor: Visitor, conversation: Conversation, action: Action) -> bool:
    """The default: whoever owns the conversation may do everything, a member what their role grants."""
    if owns(visitor, conversation):
        return True
    if visitor.user_id is None:
        return False
    membership = Member.objects.filter(conversation=conversation, user_id=visitor.user_id)
    return action in GRANTED.get(membership.values_list("role", flat=True).first() or "", ())


def owns(visitor: Visitor, conversation: Conversation) -> bool:
    """Whether this is the owner, or the anonymous visitor who began the conversation."""
    if conversation.owner_id is not None:
        return bool(conversation.owner_id == visitor.user_id)
    return bool(visitor.anonymous_id) and secrets.compare_digest(conversation.visitor, visitor.anonymous_id)


def identify(user: AbstractBaseUser | AnonymousUser | None, session: SessionBase | None) -> Visitor:
    """The visitor behind an authenticated user and a session, either of which may be missing."""
    anonymous_id = session.get(SESSION_KEY, "") if session is not None else ""
    if user is None or not user.is_authenticated:
        return Visitor(anonymous_id=anonymous_id)
    return Visitor(user_id=user.pk, anonymous_id=anonymous_id, name=name_of(user))


def name_of(user: Any) -> str:
    """What others see of a user: the full name, else the username. Never another field, such as the email."""
    full = user.get_full_name() if hasattr(user, "get_full_name") else ""
    return str(full or user.get_username())


def visitor_of(request: HttpRequest, *, create: bool = False) -> Visitor:
    """The visitor behind a request that went through Django's session and auth middleware.

    With `create`, somebody who is nobody yet gets a random id in their session: not the session's key, which
    changes at every login.
    """
    session = getattr(request, "session", None)
    visitor = identify(getattr(request, "user", None), session)
    if create and session is not None and visitor == Visitor():
        session[SESSION_KEY] = secrets.token_urlsafe(24)
        visitor = identify(None, session)
    return visitor
