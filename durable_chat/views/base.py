"""What all views share: JSON in, JSON errors out, CSRF, and the gate between a visitor and a conversation."""

import logging
import re
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, ClassVar

import orjson
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import (
    DataError,
    InterfaceError,
    OperationalError,
    close_old_connections,
    connections,
    transaction,
)
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware
from django.views import View

from durable_chat import backends, conf
from durable_chat.connections import in_database
from durable_chat.exceptions import (
    BadInput,
    Busy,
    ChatError,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    Unavailable,
)
from durable_chat.models import Conversation, Visitor
from durable_chat.permissions import Action, visitor_of
from durable_chat.runs import launch, loop, shutdown, sweep
from durable_chat.runs.rows import is_unattended

log = logging.getLogger(__name__)

FORMS = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})
ID = re.compile(r"[A-Za-z0-9_-]{1,128}")

# The same words for a conversation that is not there and for one that is somebody else's.
UNKNOWN = "There is no such conversation."


class ApiView(View):
    """An async JSON endpoint.

    Never in a transaction of the host's (`ATOMIC_REQUESTS` breaks async views), and checks CSRF itself so
    that a failure is JSON like every other error.
    """

    wrong_method: ClassVar[str] = "This address does not know that method."

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:
        view: Any = super().as_view(**initkwargs)
        view.csrf_exempt = True
        for alias in connections:
            view = transaction.non_atomic_requests(using=alias)(view)
        return view  # type: ignore[no-any-return]

    async def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        try:
            _check_csrf(request)
            response: HttpResponseBase = await super().dispatch(request, *args, **kwargs)  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 - each is answered
            return error_response(refusal_of(error))
        return response

    async def http_method_not_allowed(self, *args: Any, **kwargs: Any) -> HttpResponse:  # type: ignore[override]
        allowed = ", ".join(name.upper() for name in self.http_method_names if hasattr(self, name))
        raise MethodNotAllowed(self.wrong_method, headers={"Allow": allowed})


class ConversationView(ApiView):
    """An endpoint of one conversation."""

    async def authorise(self, conversation_id: str, action: Action) -> Conversation:
        """The conversation, if this request's visitor may do that with it. Raises NotFound."""
        visitor = await in_database(visitor_of, self.request)
        return await authorise(visitor, conversation_id, action)

    async def stop(self, conversation_id: str) -> HttpResponse:
        """Stop the running answer, wherever it is written: 202 when there was one, else 204."""
        await self.authorise(conversation_id, "stop")
        stopped = await loop.call(launch.stop, conversation_id)
        return empty_response(202 if stopped else 204)


async def authorise(visitor: Visitor, conversation_id: str, action: Action) -> Conversation:
    """The one gate between a visitor and a conversation, for every door.

    Finds on the way what nobody attends to, and does: nobody waits for an answer that will never end.
    Raises NotFound for strangers and for what is not there, alike.
    """
    if not ID.fullmatch(conversation_id):
        raise NotFound(UNKNOWN)
    sweep.start()
    shutdown.watch()
    try:
        conversation, answer, left = await in_database(_asked, visitor, conversation_id, action)
        if isawaitable(answer):
            answer = await _awaited(answer)
    except PermissionDenied:
        raise NotFound(UNKNOWN) from None
    if conversation is None or answer is not True:
        raise NotFound(UNKNOWN)
    if left and action != "delete":
        await _tended(conversation_id)
    return conversation


async def _tended(conversation_id: str) -> None:
    """As far as can be. The service may be away: what needs it will say so, and the rows can be read."""
    try:
        await loop.call(launch.tend, conversation_id)
    except Unavailable:
        pass
    except Exception:
        log.exception("conversation %s cannot be attended to", conversation_id)


def _asked(
    visitor: Visitor, conversation_id: str, action: Action
) -> tuple[Conversation | None, bool | Awaitable[bool], bool]:
    """The conversation; what permission says, which an async one has yet to; whether a run needs somebody."""
    found = Conversation.objects.filter(pk=conversation_id).first()
    if found is None:
        return None, False, False
    left = is_unattended(conversation_id)
    return found, backends.get_permission()(visitor, found, action), left


async def _awaited(answer: Awaitable[bool]) -> bool:
    """An async permission's answer. The ORM works in it at every door, and it leaves no connection open."""
    async with ThreadSensitiveContext():
        try:
            return await answer
        finally:
            await sync_to_async(close_old_connections)()


def checked_id(value: Any) -> str:
    """A conversation id as clients may name it. Raises BadInput when missing or malformed."""
    if not value:
        raise BadInput('Name the conversation: "?id=…" in the address, or "id" in the body.')
    if not isinstance(value, str) or not ID.fullmatch(value):
        raise BadInput("A conversation id has 1 to 128 characters of A-Z, a-z, 0-9, _ and -.")
    return value


def json_body(request: HttpRequest) -> dict[str, Any]:
    """The request's JSON object. Raises BadInput, TooLarge.

    Read past `request.body`, whose limit is for forms: clients post the whole history with each message.
    """
    limit = conf.get().max_body_bytes
    raw = request.read(limit + 1)
    if len(raw) > limit:
        raise TooLarge(f"The body is larger than {limit} bytes.")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise BadInput("The body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise BadInput("The body must be a JSON object.")
    return body


def json_response(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> HttpResponse:
    """JSON that no cache keeps."""
    return HttpResponse(
        orjson.dumps(value),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def empty_response(status: int) -> HttpResponse:
    """A status and nothing else: no body, and no type of one."""
    response = HttpResponse(status=status, headers={"Cache-Control": "no-store"})
    del response["Content-Type"]
    return response


def error_response(error: ChatError) -> HttpResponse:
    """`{"error": sentence}` with the error's status and headers."""
    return json_response(error_body(error), status=error.status, headers=error.headers)


def error_body(error: ChatError) -> dict[str, Any]:
    """What every door answers for an error; a busy conversation names the run that keeps it so."""
    named = {"activeRun": {"runId": error.run_id}} if isinstance(error, Busy) else {}
    return {"error": str(error), **named}


def refusal_of(error: Exception) -> ChatError:
    """What a door tells its client of whatever was raised behind it; what nobody expected is logged."""
    match error:
        case ChatError():
            return error
        case SuspiciousOperation() | DataError():  # more parameters than Django takes; a NUL in a cookie
            return BadInput("The request is malformed.")
        case OperationalError() | InterfaceError():
            log.warning("the database is away: %s", type(error).__name__)
            return Unavailable("The site's database cannot be reached right now: try again in a moment.")
    log.error("a request failed", exc_info=error)
    return ChatError("Something went wrong on the server.")


class _CsrfCheck(CsrfViewMiddleware):
    def _reject(self, request: HttpRequest, reason: str) -> Any:
        return reason


def _check_csrf(request: HttpRequest) -> None:
    """Raises Forbidden. A form's body is refused unread, so that the token can only come as a header."""
    if request.method == "POST" and request.content_type in FORMS:
        raise BadInput("Send JSON: Content-Type: application/json.")
    check = _CsrfCheck(lambda request: HttpResponse())
    check.process_request(request)
    reason = check.process_view(request, lambda request: HttpResponse(), (), {})
    if reason is not None:
        raise Forbidden(f"{reason} Send the csrftoken cookie's value as the header X-CSRFToken.")
