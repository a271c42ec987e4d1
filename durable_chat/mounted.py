"""What `mount` makes: live reads, WebSockets and the embedded server beside Django, as bare ASGI."""

import logging
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import orjson
from channels.routing import URLRouter
from django.core.handlers.asgi import ASGIHandler
from django.urls import NoReverseMatch, reverse

from durable_chat import origins
from durable_chat.authentication import Authenticate, Who, authenticated_by
from durable_chat.consumers import WHO
from durable_chat.exceptions import ChatError
from durable_chat.routing import WEBSOCKET, websocket_urlpatterns
from durable_chat.streams.embedded import process
from durable_chat.streams.embedded.asgi import Receive, Scope, Send, send_response, while_connected
from durable_chat.streams.protocol.exchange import Response
from durable_chat.views.base import error_body, refusal_of
from durable_chat.views.read import HEADERS_USED, read

log = logging.getLogger(__name__)


class Mounted:
    """Sends each connection to the door it belongs to."""

    def __init__(
        self, django_application: Any, root: str, authenticate: Authenticate | str | None = None
    ) -> None:
        self._takes_sockets = not isinstance(django_application, ASGIHandler)
        self._elsewhere = process.mount(django_application, root=root)
        self._authenticate = authenticated_by(authenticate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._door(scope)(scope, receive, send)

    def _door(self, scope: Scope) -> Any:
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] == "websocket" and WEBSOCKET.match(path.lstrip("/")):
            return self._websockets
        if scope["type"] == "websocket" and not self._takes_sockets:
            return _refuse
        if scope["type"] == "http" and scope["method"] == "GET" and path.rstrip("/") == _read_path():
            return self._read
        return self._elsewhere

    async def _websockets(self, scope: Scope, receive: Receive, send: Send) -> None:
        application: Any = URLRouter(websocket_urlpatterns)
        known = {**scope, WHO: partial(self._authenticate, scope)}
        await origins.guarded(application)(known, receive, send)

    async def _read(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET api/chat-stream`."""
        await while_connected(receive, _answer(scope, send, partial(self._authenticate, scope)))


def _read_path() -> str | None:
    """Where the host has put the reader; None if nowhere, which `manage.py check` complains of."""
    try:
        return reverse("durable_chat:read").rstrip("/")
    except NoReverseMatch:
        return None


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """A socket that nobody here takes: Django would answer it with a traceback."""
    await send({"type": "websocket.close"})


async def _answer(scope: Scope, send: Send, who: Who) -> None:
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    sent = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    headers = {name: sent[name] for name in HEADERS_USED if name in sent}
    try:
        response = await read(await who(), who=who, query=query, headers=headers)
    except Exception as error:  # noqa: BLE001 - each is answered
        response = _refusal(refusal_of(error))
    shared = {**response.headers, **origins.shared_with(sent.get("origin", ""))}
    async with response._replace(headers=shared) as told:
        await send_response(told, scope, send)


def _refusal(error: ChatError) -> Response:
    told = {name.lower(): value for name, value in error.headers.items()}
    told |= {"content-type": "application/json", "cache-control": "no-store"}
    return Response(error.status, told, orjson.dumps(error_body(error)))
