"""Who is at the doors that Django's middleware does not guard, and who still is while a connection lasts."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from django.contrib import auth
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, parse_cookie
from django.utils.module_loading import import_string

from durable_chat import conf
from durable_chat.connections import in_database
from durable_chat.models import Visitor
from durable_chat.permissions import identify

Scope: TypeAlias = Any  # an ASGI connection scope
Who: TypeAlias = Callable[[], Awaitable[Visitor]]
"""Finds out who is there, anew at every call."""
Authenticate: TypeAlias = Callable[[Scope], Awaitable[Any]]
"""What a host gives to `mount`: the Visitor or the user behind an ASGI scope, or None for nobody."""


async def by_session(scope: Scope) -> Visitor:
    """The visitor behind the session cookie of a connection."""
    return await in_database(_of_cookie, _cookie_header(scope))


def authenticated_by(authenticate: Authenticate | str | None) -> Callable[[Scope], Awaitable[Visitor]]:
    """The host's own way to know its visitors, or its dotted path; without one the session's.

    Raises ImportError, at the first connection, for a path that names nothing.
    """
    if authenticate is None:
        return by_session

    async def visitor(scope: Scope) -> Visitor:
        named = import_string(authenticate) if isinstance(authenticate, str) else authenticate
        try:
            found = await named(scope)
        except PermissionDenied:
            found = None
        return found if isinstance(found, Visitor) else identify(found, None)

    return visitor


def still(user: AbstractBaseUser | AnonymousUser | None, session: SessionBase | None) -> Visitor:
    """Who a user and a session that were looked up earlier stand for now.

    The session is looked up again: it may have ended, its user may be gone, or have another password. A user
    who did not come by the session is whoever authenticated them then.
    """
    if session is None or not session.session_key:
        return identify(user, session)
    present = session.__class__(session.session_key)
    return identify(_user(present) if _came_by(session, user) else user, present)


def _came_by(session: SessionBase, user: AbstractBaseUser | AnonymousUser | None) -> bool:
    if user is None or not user.is_authenticated:
        return True
    return bool(session.get(auth.SESSION_KEY) == user._meta.pk.value_to_string(user))


def _of_cookie(header: str) -> Visitor:
    name, store = conf.sessions()
    session = store(parse_cookie(header).get(name))
    return identify(_user(session), session)


def _user(session: SessionBase) -> AbstractBaseUser | AnonymousUser:
    request = HttpRequest()
    request.session = session
    return auth.get_user(request)


def _cookie_header(scope: Scope) -> str:
    sent = (value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie")
    return "; ".join(sent)
