"""The server's HTTP door: a bare ASGI application, no middleware, no thread per reader."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import unquote, unquote_plus

from durable_chat.streams.protocol.errors import PayloadTooLarge, StreamError, StreamNotFound, to_response
from durable_chat.streams.protocol.exchange import Handler, Request, Response
from durable_chat.streams.protocol.headers import BROWSER, STREAM_FORKED_FROM
from durable_chat.streams.server.auth import Access, authorize
from durable_chat.streams.server.options import MAX_BODY

logger = logging.getLogger(__name__)

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Header: TypeAlias = tuple[bytes, bytes]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_WITH_BODY: Final = frozenset({"PUT", "POST"})
_WITHOUT_LENGTH: Final = frozenset({204, 304})
_DIGITS: Final = 19  # of a length: as many are too large already, and Python does not count thousands


class _Disconnected(Exception):
    """The client went away before its request was complete."""


@dataclass(frozen=True, slots=True)
class StreamsApplication:
    """Serves the streams below ``root``, a path that begins and ends with a slash, to whom ``access`` admits.

    A body above ``max_body`` bytes is refused before it is read to its end. A trailing slash names the same
    stream as none.
    """

    handle: Handler
    root: str
    access: Access
    max_body: int = MAX_BODY

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"Streams are served over HTTP, not over {scope['type']}.")
        try:
            request = await self._request(scope, receive)
        except _Disconnected:
            return
        except StreamError as error:
            await send_response(to_response(error), scope, send, beside=_BROWSER)
            return
        answering = self._answer(request, scope, send)
        await (while_connected(receive, answering) if "live" in request.query else answering)

    async def _request(self, scope: Scope, receive: Receive) -> Request:
        """The request, once it is known to be admitted."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        authorize(self.access, scope["method"], headers.get("authorization"))
        path = self._name(scope["path"], scope)
        if STREAM_FORKED_FROM in headers:
            headers[STREAM_FORKED_FROM] = self._name(unquote(headers[STREAM_FORKED_FROM]), scope)
        query = _parameters(scope["query_string"].decode("latin-1"))
        body = b""
        if scope["method"] in _WITH_BODY:
            body = await self._body(headers.get("content-length", ""), receive)
        return Request(scope["method"], path, query, headers, body)

    def _name(self, path: str, scope: Scope) -> str:
        """The stream that a URL's decoded path names. Raises ``StreamNotFound`` if it is none of ours."""
        path = path.removeprefix(scope.get("root_path", ""))
        if not path.startswith(self.root):
            raise StreamNotFound
        return path.removeprefix(self.root).strip("/")

    async def _body(self, announced: str, receive: Receive) -> bytes:
        if announced.isdecimal() and int(announced[:_DIGITS]) > self.max_body:
            raise PayloadTooLarge
        pieces: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Disconnected
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > self.max_body:
                raise PayloadTooLarge
            more = message.get("more_body", False)
        return b"".join(pieces)

    async def _answer(self, request: Request, scope: Scope, send: Send) -> None:
        try:
            response = await self.handle(request)
        except Exception:
            logger.exception("%s of stream %s failed", request.method, request.path)
            response = to_response(StreamError())
        try:
            await send_response(self._located(response, scope), scope, send, beside=_BROWSER)
        finally:
            await response.aclose()

    def _located(self, response: Response, scope: Scope) -> Response:
        """The response with ``Location`` as the stream's whole URL; the server knows only its last part."""
        location = response.headers.get("location")
        if location is None:
            return response
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        url = f"{scope.get('scheme', 'http')}://{host}{scope.get('root_path', '')}{self.root}{location}"
        return response._replace(headers={**response.headers, "location": url})


def _parameters(query: str) -> dict[str, str]:
    # As parse_qsl has it, which takes as long as the rest of the request's reading.
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return {unquote_plus(name): unquote_plus(value) for name, _, value in pairs}


async def send_response(
    response: Response, scope: Scope, send: Send, *, beside: Sequence[Header] = ()
) -> None:
    """Send one answer with the headers ``beside`` its own, its body as it comes. The caller closes it."""
    body = b"" if scope["method"] == "HEAD" else response.body
    headers = [*beside, *_encoded(response.headers)]
    if isinstance(body, bytes) and response.status not in _WITHOUT_LENGTH and scope["method"] != "HEAD":
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if isinstance(body, bytes):
        await send({"type": "http.response.body", "body": body})
        return
    async for piece in body:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _encoded(headers: Mapping[str, str]) -> list[Header]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


_BROWSER: Final = _encoded(BROWSER)


async def while_connected(receive: Receive, answering: Coroutine[Any, Any, None]) -> None:
    """Answer until done or until the client has gone, whichever is first; nothing is left running."""
    tasks = [asyncio.create_task(answering), asyncio.create_task(_disconnected(receive))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    if not tasks[0].cancelled():
        tasks[0].result()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
