"""`{% durable_chat %}` as templates use it, without a browser."""

import re
from typing import Any

import pytest
from django.contrib.sessions.backends.cache import SessionStore
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404
from django.template import engines
from django.test import RequestFactory

from durable_chat import snapshot
from durable_chat.messages import Message
from durable_chat.models import Conversation
from durable_chat.templatetags.durable_chat import shown


def render(conversation: Conversation, tag: str = "{% durable_chat conversation %}", **context: Any) -> str:
    request = RequestFactory().get("/")
    request.session = SessionStore()
    template = engines["django"].from_string("{% load durable_chat %}" + tag)
    html: str = template.render({"conversation": conversation, **context}, request)
    return html


@pytest.fixture
def conversation(site: None) -> Conversation:
    conversation: Conversation = Conversation.objects.create(title="<Ants>")
    conversation.messages.create(
        client_id="m", role="user", position=0, parts=[{"type": "text", "content": "<b>hi</b>"}]
    )
    return conversation


def test_everything_is_escaped_and_nothing_is_inline(conversation: Conversation) -> None:
    html = render(conversation)
    assert "&lt;Ants&gt;" in html
    assert re.search(r'data-slot="content"\s+dir="auto">&lt;b&gt;hi&lt;/b&gt;</div>', html)
    assert " style=" not in html
    assert " onclick=" not in html
    assert "<script>" not in html
    assert f"?id={conversation.pk}" in html


def test_an_answer_that_is_not_whole_says_why_whatever_follows(conversation: Conversation) -> None:
    for position, ended in enumerate(("stopped", "failed"), start=1):
        conversation.messages.create(
            client_id=ended,
            role="assistant",
            position=position,
            parts=[],
            metadata={"durable_chat": {"ended": ended}},
        )
    html = render(conversation)
    assert html.count('data-ended="') == 2
    assert 'data-ended="stopped"' in html
    assert '<span data-when="stopped">The answer was stopped.</span>' in html


def test_who_may_only_read_has_nothing_to_ask_again_with(conversation: Conversation) -> None:
    assert 'data-action="retry"' in render(conversation)
    html = render(conversation, "{% durable_chat conversation readonly=True %}")
    assert 'data-role="error"' in html
    assert 'data-action="retry"' not in html


def test_suggestions(conversation: Conversation) -> None:
    html = render(conversation, "{% durable_chat conversation prompts=prompts %}", prompts=['say "a"'])
    assert 'data-prompt="say &quot;a&quot;"' in html


def test_an_async_view_brings_its_own_snapshot(conversation: Conversation) -> None:
    taken = snapshot.take(conversation.pk)
    conversation.messages.all().delete()
    html = render(conversation, "{% durable_chat conversation snapshot=taken %}", taken=taken)
    assert "&lt;b&gt;hi&lt;/b&gt;" in html


def test_a_conversation_that_is_gone_is_not_found(conversation: Conversation) -> None:
    gone = Conversation(pk=conversation.pk)
    conversation.delete()
    with pytest.raises(Http404):
        render(gone)


def test_without_a_request_it_says_what_it_needs(conversation: Conversation) -> None:
    template = engines["django"].from_string("{% load durable_chat %}{% durable_chat conversation %}")
    with pytest.raises(ImproperlyConfigured, match="needs the request"):
        template.render({"conversation": conversation})


@pytest.mark.parametrize(
    "told", [{}, {"durable_chat": None}, {"durable_chat": "x"}, {"durable_chat": {"ended": None}}]
)
def test_an_answer_that_says_nothing_of_its_end_is_whole(told: dict[str, Any]) -> None:
    assert shown(Message(id="m", role="assistant", metadata=told))["ended"] == ""


FILES = {
    "https://example.org/a": "https://example.org/a",
    "http://example.org/a": "http://example.org/a",
    "javascript:alert(1)": "",
    "data:text/html,<script>": "",
    "//example.org": "",
}


@pytest.mark.parametrize("url", FILES)
def test_links_lead_to_the_web_only(url: str) -> None:
    source = {"type": "url", "value": url, "mimeType": "image/png"}
    message = Message(id="m", role="user", parts=({"type": "image", "source": source},))
    assert shown(message)["parts"] == [{"type": "file", "name": "image/png", "url": FILES[url]}]


@pytest.mark.parametrize(
    "part",
    [
        {},
        {"type": 7},
        {"type": "image", "source": "x"},
        {"type": "text", "content": {"a": [1]}},
        {"type": "tool-call", "id": {"a": 1}},
        {"type": "tool-result", "toolCallId": {"a": 1}},
    ],
)
def test_odd_parts_are_shown_as_something(part: dict[str, Any]) -> None:
    call = {"type": "tool-call", "id": "k", "name": "f", "arguments": "{}", "output": [1], "state": "error"}
    *_, last = shown(Message(id="m", role="user", parts=(part, call)))["parts"]
    assert last == {
        "type": "tool-call",
        "id": "k",
        "name": "f",
        "arguments": "{}",
        "state": "failed",
        "result": "[1]",
    }
