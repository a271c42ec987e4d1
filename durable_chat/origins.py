"""Whose pages may speak to the doors that Django's middleware does not guard."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlparse

from channels.security.websocket import AllowedHostsOriginValidator, OriginValidator, WebsocketDenier

from durable_chat import conf

EXPOSED = (
    "ETag, Location, Retry-After, Stream-Closed, Stream-Cursor, Stream-Next-Offset, "
    "Stream-SSE-Data-Encoding, Stream-Up-To-Date"
)


def guarded(application: Any) -> Any:
    """A WebSocket application that pages of other sites are kept from: of any but ALLOWED_ORIGINS.

    Without that setting, of any but ALLOWED_HOSTS. Browsers send the cookie along whoever opens a WebSocket.
    """
    origins = conf.get().allowed_origins
    guard = OriginValidator(application, origins) if origins else AllowedHostsOriginValidator(application)

    async def guarding(scope: Any, receive: Any, send: Any) -> None:
        named = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        door: Any = guard if all(map(_is_readable, named)) else WebsocketDenier()
        await door(scope, receive, send)

    return guarding


def shared_with(origin: str) -> Mapping[str, str]:
    """The headers by which a browser lets a page of one of ALLOWED_ORIGINS read an answer; else none.

    Without them it shows the answer to pages of the same origin alone.
    """
    validator: Any = OriginValidator
    origins = conf.get().allowed_origins
    if not origins:
        return {}
    headers = {"vary": "Origin"}
    if not (_is_readable(origin) and validator(None, origins).valid_origin(urlparse(origin))):
        return headers
    allowed = {"access-control-allow-origin": origin, "access-control-allow-credentials": "true"}
    return headers | allowed | {"access-control-expose-headers": EXPOSED}


def _is_readable(origin: str) -> bool:
    """Whether Channels can compare this origin: what has no such host or port is nobody's."""
    try:
        urlparse(origin).port  # noqa: B018
    except ValueError:
        return False
    return True
