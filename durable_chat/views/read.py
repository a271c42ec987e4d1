"""`GET api/chat-stream`: the read proxy, and the AI SDK's view of one run. One function behind two doors."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from hashlib import blake2s
from typing import Any, Final

from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from durable_chat import backends
from durable_chat.authentication import Who, still
from durable_chat.conf import NAME
from durable_chat.connections import in_database
from durable_chat.exceptions import BadInput, NotFound, Unavailable
from durable_chat.marks import inward, is_before_all, marked
from durable_chat.models import Conversation, Run, Visitor
from durable_chat.permissions import visitor_of
from durable_chat.runs import loop
from durable_chat.streams.client.answers import tail
from durable_chat.streams.protocol.errors import (
    BadRequest,
    Forbidden,
    StreamError,
    StreamGone,
    StreamNotFound,
    Unauthorized,
    from_response,
)
from durable_chat.streams.protocol.exchange import Body, Request, Response
from durable_chat.streams.protocol.headers import matches
from durable_chat.streams.protocol.offsets import START
from durable_chat.views.base import ID, ApiView, checked_id
from durable_chat.views.run_view import read_run
from durable_chat.views.watch import Watch

log = logging.getLogger(__name__)

SECRETS: Final = f'{NAME}["STREAMS"], DS_SERVICE_ID and DS_SECRET'
PARAMETERS_UP: Final = ("offset", "live", "cursor")
SILENCE_SECONDS = 90.0  # longer than any service is silent within a live read
HEADERS_UP: Final = ("accept",)
HEADERS_USED: Final = (*HEADERS_UP, "if-none-match")
HEADERS_DOWN: Final = frozenset(
    {
        "content-type",
        "etag",
        "retry-after",
        "stream-closed",
        "stream-cursor",
        "stream-next-offset",
        "stream-sse-data-encoding",
        "stream-up-to-date",
    }
)


class ReadView(ApiView):
    """The read proxy behind Django's door, for hosts that do not mount the bare one."""

    wrong_method = "GET here reads; POST api/chat?id=… sends."

    async def get(self, request: HttpRequest) -> HttpResponseBase:
        return await self._answer(request, request.GET.dict())

    async def head(self, request: HttpRequest) -> HttpResponseBase:
        """The headers of a page: a live read would keep the connection, and send nothing."""
        return await self._answer(request, {k: v for k, v in request.GET.dict().items() if k != "live"})

    async def _answer(self, request: HttpRequest, query: Mapping[str, str]) -> HttpResponseBase:
        visitor = await in_database(visitor_of, request)
        headers = {name: request.headers[name] for name in HEADERS_USED if name in request.headers}
        user, session = getattr(request, "user", None), getattr(request, "session", None)
        reading = partial(
            read, visitor, who=partial(in_database, still, user, session), query=query, headers=headers
        )
        if isinstance(request, WSGIRequest):
            # The loop that this view runs on ends with it; the body is read on one that does not.
            return _to_django(await loop.call(reading), _blocking_pieces)
        return _to_django(await reading(), _pieces)


async def read(
    visitor: Visitor, *, who: Who, query: Mapping[str, str], headers: Mapping[str, str]
) -> Response:
    """The answer to one read of a conversation's stream, for the door to send and close.

    A live one ends when `who` is there then may no longer read.

    Raises NotFound, BadInput, and Unavailable for whatever is wrong upstream: a 404 or 401 of the service
    would make clients give the conversation up for good.
    """
    watch = Watch(checked_id(query.get("id")), who)
    conversation = await watch.admit(visitor)
    if query.get("live", "sse") not in ("sse", "long-poll"):
        raise BadInput('"live" is "sse" or "long-poll".')
    if "live" in query and "offset" not in query:
        raise BadInput('A live read needs an "offset": -1 is the beginning.')
    try:
        try:
            response = await _told(conversation, query, headers)
        except (StreamNotFound, StreamGone, BadRequest):
            # Nobody reads a 404 for a conversation that exists, nor a 400 for what a lost stream has told.
            response = await _told(await watch.mended(), _anywhere(query), headers)
    except BadRequest:
        raise BadInput('The "offset" is not one that an earlier answer gave; -1 is the beginning.') from None
    except (Unauthorized, Forbidden):
        log.error("The streams service refuses this site: see %s.", SECRETS)  # noqa: TRY400 - it says no more
        raise Unavailable("The transcript cannot be read right now.") from None
    except StreamError as error:
        raise Unavailable("The transcript cannot be read right now.", headers=_wait(error.headers)) from error
    return await watch.over(_private(response))


async def _told(conversation: Conversation, query: Mapping[str, str], headers: Mapping[str, str]) -> Response:
    if "run" not in query:
        return await _read(conversation, query, headers)
    run = await _run(conversation, query["run"])
    return await read_run(backends.get_streams(), conversation, run, query=query)


def _anywhere(query: Mapping[str, str]) -> Mapping[str, str]:
    """The query, for a service that may be another than the one that its offset is from."""
    begins = "run" not in query and is_before_all(query.get("offset", START))
    return {**query, "offset": START} if begins else query


async def _run(conversation: Conversation, run_id: str) -> Run:
    named = Run.objects.filter(conversation=conversation, pk=run_id)
    run: Run | None = await in_database(named.first) if ID.fullmatch(run_id) else None
    if run is None:
        raise NotFound("There is no such run in this conversation.")
    return run


async def _read(conversation: Conversation, query: Mapping[str, str], headers: Mapping[str, str]) -> Response:
    """The service's own answer, its body unread. One that ends before the rows do is of another stream."""
    parameters = {name: query[name] for name in PARAMETERS_UP if name in query}
    if "offset" in parameters:
        parameters["offset"] = inward(conversation.mark, parameters["offset"])
    kept = {name: headers[name] for name in HEADERS_UP if name in headers}
    request = Request("GET", conversation.stream_path, parameters, kept)
    response = await backends.get_streams().handler(request)
    if response.status >= 400:
        await response.aclose()
        raise from_response(response.status, response.headers)
    if "stream-up-to-date" in response.headers and tail(response) < conversation.offset:
        await response.aclose()
        raise StreamNotFound
    known = "" if "live" in query else headers.get("if-none-match", "")
    return await _tagged(marked(conversation.mark, response), known)


async def _tagged(response: Response, known: str) -> Response:
    """With a digest for an entity tag: a service's own may tell its paths. 304 to whoever knows it."""
    if "etag" not in response.headers:
        return response
    tag = f'"{blake2s(response.headers["etag"].encode(), digest_size=16).hexdigest()}"'
    headers = {**response.headers, "etag": tag}
    if not matches(known, tag):
        return response._replace(headers=headers)
    await response.aclose()
    return Response(304, headers)


def _wait(headers: Mapping[str, str]) -> dict[str, str]:
    return {"Retry-After": headers["retry-after"]} if "retry-after" in headers else {}


def _private(response: Response) -> Response:
    """Only what a reader needs comes down, and no cache keeps it: one address has many visitors."""
    kept = {name: value for name, value in response.headers.items() if name in HEADERS_DOWN}
    kept |= {"cache-control": "no-store", "x-content-type-options": "nosniff", "x-accel-buffering": "no"}
    return Response(response.status, kept, response.body)


def _to_django(response: Response, pieces: Callable[[Body], Any]) -> HttpResponseBase:
    # GZipMiddleware leaves alone what is encoded: it would hold live answers back, and rename the ETag.
    headers = {**response.headers, "content-encoding": "identity"}
    if isinstance(response.body, bytes):
        return HttpResponse(response.body, status=response.status, headers=headers)
    return StreamingHttpResponse(pieces(response.body), status=response.status, headers=headers)


async def _pieces(body: Body) -> AsyncIterator[bytes]:
    try:
        async for piece in body:
            yield piece
    finally:
        await body.aclose()


def _blocking_pieces(body: Body) -> Iterator[bytes]:
    """For WSGI, which gives a live read a thread: the background loop does the waiting."""
    pieces = aiter(body)

    async def following() -> bytes | None:
        return await anext(pieces, None)

    try:
        while (piece := loop.block(following, timeout=SILENCE_SECONDS)) is not None:
            yield piece
    finally:
        loop.block(body.aclose, timeout=SILENCE_SECONDS)
