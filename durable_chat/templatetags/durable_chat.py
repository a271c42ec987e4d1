"""`{% durable_chat conversation %}`: the transcript rendered here, enlivened in the browser by chat.js."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson
from django import template
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.http import Http404, HttpRequest
from django.middleware.csrf import get_token
from django.template import Context
from django.urls import reverse
from django.utils.translation import gettext

from durable_chat import conf
from durable_chat import snapshot as snapshots
from durable_chat.messages import Message, Part
from durable_chat.models import Conversation, Visitor
from durable_chat.permissions import owns, visitor_of
from durable_chat.snapshot import Snapshot, Waiting

register = template.Library()

# What chat.js clones for messages and parts that arrive later: the templates that rendered the earlier ones.
ROLES: Final = ("user", "assistant", "system", "error", "note")
PARTS: Final = ("text", "thinking", "tool-call", "file")


@register.inclusion_tag("durable_chat/chat.html", takes_context=True)
def durable_chat(
    context: Context,
    conversation: Conversation,
    *,
    snapshot: Snapshot[Message] | None = None,
    visitor: Visitor | None = None,
    prompts: Iterable[str] = (),
    readonly: bool = False,
) -> dict[str, Any]:
    """The conversation, live. Whoever calls has checked that this visitor may read it.

    ``prompts`` are suggestions for an empty conversation; ``readonly`` hides the composer from who may not
    send. An async view passes what `snapshot.atake` gave it, and the visitor, because a template cannot wait
    for the database. Raises Http404 for a conversation that was deleted.
    """
    request = _request(context)
    taken = snapshot or snapshots.take(conversation.pk)
    if taken is None:
        raise Http404("There is no such conversation.")
    viewer = visitor or _visitor(request)
    unsigned = "" if owns(viewer, conversation) else gettext("Guest")
    user_id = "" if viewer.user_id is None else str(viewer.user_id)
    messages = [_signed(shown(message), user_id, unsigned) for message in taken.messages]
    return {
        "conversation": conversation,
        "offset": taken.offset,
        "active_run": taken.active_run or "",
        "messages": [*messages, *_ending(taken)],
        "queued": [_waiting(waiting) for waiting in taken.queued],
        "when_busy": conf.get().when_busy,
        "queue_url": reverse("durable_chat:queue", args=[conversation.pk, "-"]).removesuffix("-"),
        "csrf_token": get_token(request),
        "user_id": user_id,
        "unsigned": unsigned,
        "prompts": () if readonly else prompts,
        "readonly": readonly,
        "role_prototypes": [{"role": role} for role in ROLES],
        "part_prototypes": [{"type": kind} for kind in PARTS],
    }


def _request(context: Context) -> HttpRequest:
    request = getattr(context, "request", None) or context.get("request")
    if not isinstance(request, HttpRequest):
        raise ImproperlyConfigured("{% durable_chat %} needs the request: render the template with it.")
    return request


def _visitor(request: HttpRequest) -> Visitor:
    try:
        return visitor_of(request)
    except SynchronousOnlyOperation:
        return Visitor()  # an async view that did not say: everybody is shown by name


def _signed(message: dict[str, Any], user_id: str, unsigned: str) -> dict[str, Any]:
    """The message with the name of whoever wrote it, if that is not the one who reads it; as in view.js."""
    author = message["author"]
    if message["role"] != "user" or (author is not None and author["id"] == user_id):
        return message
    return message | {"name": unsigned if author is None else author["name"]}


def _waiting(waiting: Waiting) -> dict[str, str]:
    return {"id": waiting.message.id, "name": waiting.run_id, "text": waiting.message.text()}


def _ending(taken: Snapshot[Message]) -> list[dict[str, Any]]:
    """Why the last answer is not whole, as chat.js shows it when it happens."""
    if taken.failure is None:
        return []
    role = "note" if taken.failure.stopped else "error"
    part = {"type": "text", "content": taken.failure.text}
    return [{"id": f"end-{taken.failure.run_id}", "role": role, "parts": [part]}]


def shown(message: Message) -> dict[str, Any]:
    """A message as message.html shows it, which is what fold.js makes of the same chunks."""
    results = {
        _text(part.get("toolCallId")): part for part in message.parts if part.get("type") == "tool-result"
    }
    parts = [_part(part, results) for part in message.parts if part.get("type") != "tool-result"]
    signed = {"id": message.id, "role": message.role, "author": _author(message)}
    return {**signed, "ended": _ended(message), "parts": parts}


def _author(message: Message) -> dict[str, str] | None:
    author = message.metadata.get("author")
    return {key: _text(author.get(key)) for key in ("id", "name")} if isinstance(author, dict) else None


def _ended(message: Message) -> str:
    """How an answer ended that is not whole: stopped, interrupted or failed."""
    told = message.metadata.get("durable_chat")
    return _text(told.get("ended")) if isinstance(told, dict) else ""


def _part(part: Part, results: Mapping[str, Part]) -> dict[str, Any]:
    """A part as part.html and parts.js know it: a tool's result is part of its call, the rest are files."""
    kind = part.get("type")
    if kind in ("text", "thinking"):
        return {"type": kind, "content": _text(part.get("content"))}
    if kind == "tool-call":
        return _tool_call(part, results.get(_text(part.get("id")), {}))
    source = part.get("source")
    named = source if isinstance(source, dict) else {}
    url = _text(named.get("value"))
    # A link, never an image from elsewhere: loading one would tell its host who reads this, and when.
    linked = url if url.startswith(("https://", "http://")) else ""
    return {"type": "file", "name": _text(named.get("mimeType")) or _text(kind), "url": linked}


def _tool_call(part: Part, answer: Part) -> dict[str, Any]:
    result = answer.get("content", part.get("output"))
    failed = "error" in (part.get("state"), answer.get("state"))
    state = "failed" if failed else "running" if result is None else "done"
    call = {key: _text(part.get(key)) for key in ("id", "name", "arguments")}
    return {"type": "tool-call", **call, "state": state, "result": _text(result)}


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value).decode()
