"""The demo's pages: a visitor's conversations, and one of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.generic import TemplateView

from durable_chat.messages import Message as Said
from durable_chat.models import Conversation, Message, new_id
from durable_chat.permissions import may, owns, visitor_of
from durable_chat.views.conversations import create_conversation

PROMPTS = ("words=200 delay=30", "show me reasoning", "call a tool", "an error please")


@dataclass(frozen=True, slots=True)
class Entry:
    """A conversation in the list; its name is its title, else the first thing that was said in it."""

    pk: str
    name: str
    updated_at: datetime


class HomeView(TemplateView):
    """The visitor's conversations, and the button that begins one."""

    template_name = "home.html"

    def post(self, request: HttpRequest) -> HttpResponse:
        """The conversation in which nothing has been said yet, if there is one, or another."""
        visitor = visitor_of(request, create=True)
        unused = _own(request).filter(title="", messages=None)
        conversation = next((each for each in unused if owns(visitor, each)), None)
        conversation = conversation or create_conversation(new_id(), visitor)
        return redirect("conversation", conversation.pk)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(entries=list(_entries(_own(self.request))), **kwargs)


class ConversationView(TemplateView):
    """One conversation, beside the list of all. Somebody else's is not found."""

    template_name = "conversation.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        own = _own(self.request)
        conversation = get_object_or_404(own, pk=self.kwargs["conversation_id"])
        entries = list(_entries(own))
        return super().get_context_data(
            conversation=conversation,
            name=next((entry.name for entry in entries if entry.pk == conversation.pk), ""),
            readonly=not may(visitor_of(self.request), conversation, "send"),
            entries=entries,
            prompts=PROMPTS,
            **kwargs,
        )


def _own(request: HttpRequest) -> "QuerySet[Conversation]":
    own: QuerySet[Conversation] = Conversation.objects.visible_to(visitor_of(request))
    return own


def _entries(conversations: "QuerySet[Conversation]") -> Iterator[Entry]:
    asked = Message.objects.visible().filter(conversation=OuterRef("pk"), role="user").order_by("position")
    listed = conversations.annotate(asked=Subquery(asked.values("parts")[:1]))
    for pk, title, parts, updated_at in listed.values_list("pk", "title", "asked", "updated_at"):
        said = Said(id="", role="user", parts=tuple(parts or ())).text()
        yield Entry(pk, (title or said)[:80] or "New conversation", updated_at)
