"""The third gate, user to conversation: who asks, and whether they may. Deny first; strangers get 404."""

import secrets
from typing import Literal, Protocol

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest

from durable_chat.models import Conversation, Visitor

SESSION_KEY = "durable_chat_visitor"

Action = Literal["read", "send", "stop", "delete"]


class Permission(Protocol):
    """What the setting `PERMISSION` names. Only `True` admits."""

    def __call__(self, visitor: Visitor, conversation: Conversation, action: Action) -> bool: ...


def may(visitor: Visitor, conversation: Conversation, action: Action) -> bool:
    """The default: the owner, or the anonymous visitor who began the conversation, may do everything."""
    if conversation.owner_id is not None:
        return bool(conversation.owner_id == visitor.user_id)
    return bool(visitor.anonymous_id) and secrets.compare_digest(conversation.visitor, visitor.anonymous_id)


def identify(user: AbstractBaseUser | AnonymousUser | None, session: SessionBase | None) -> Visitor:
    """The visitor behind an authenticated user and a session, either of which may be missing."""
    anonymous_id = session.get(SESSION_KEY, "") if session is not None else ""
    user_id = user.pk if user is not None and user.is_authenticated else None
    return Visitor(user_id=user_id, anonymous_id=anonymous_id)


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
