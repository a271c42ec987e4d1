"""Both client families in one conversation, and somebody whose conversation it is not."""

import pytest

from tests.clients.visitor import Visitor, assert_grew, stored, texts, words

SLOW = "Say words=60 delay=30"


@pytest.mark.parametrize("by", ["ai-sdk", "tanstack"])
def test_each_sees_the_run_that_the_other_has_started(visitor: Visitor, conversation: str, by: str):
    result = visitor.drive("together", conversation, prompt=SLOW, by=by)
    tab, chat = result["tab"], result["chat"]
    assert tab["messages"] == chat["messages"]
    assert texts(tab["messages"]) == [("user", SLOW), ("assistant", words(60))]
    assert (tab["errors"], chat["errors"]) == ([], [])
    assert (tab["loading"], tab["generating"], chat["status"]) == (False, False, "ready")
    assert_grew(tab)
    assert_grew(chat)
    assert visitor.settled(conversation) == stored(tab["messages"])
    assert visitor.counts(conversation) == {"runs": 1, "echoes": 1, "terminals": 1}


def test_a_stranger_is_refused_by_both(visitor: Visitor, stranger: Visitor, conversation: str):
    visitor.drive("tanstack_tabs", conversation, prompts=["A secret of words=3"])
    before = visitor.chunks(conversation)
    refused = stranger.drive("refused", conversation, prompt="Let me in")
    assert refused["read"]["connection"] == "error"
    assert refused["read"]["messages"] == []
    assert refused["sent"]["errors"]
    assert refused["chat"]["status"] == "error"
    assert texts(refused["chat"]["messages"]) == [("user", "Let me in")]
    assert refused["reconnect"]
    assert visitor.chunks(conversation) == before


ROUTES = [
    ("GET", "/api/conversations/{id}", None),
    ("PATCH", "/api/conversations/{id}", {"title": "mine"}),
    ("DELETE", "/api/conversations/{id}", None),
    (
        "POST",
        "/api/chat?id={id}",
        {"messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "content": "x"}]}]},
    ),
    (
        "POST",
        "/api/chat",
        {
            "id": "{id}",
            "trigger": "submit-message",
            "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "x"}]}],
        },
    ),
    ("GET", "/api/chat-stream?id={id}&offset=-1", None),
    ("GET", "/api/chat-stream?id={id}&offset=-1&live=sse", None),
    ("GET", "/api/chat-stream?id={id}&offset=-1&live=long-poll", None),
    ("GET", "/api/chat-stream?id={id}&offset=-1&run={run}", None),
    ("GET", "/api/chat/{id}/stream", None),
    ("POST", "/api/chat/{id}/stop", {}),
]


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(("method", "route", "body"), ROUTES)
def test_a_stranger_learns_nothing_on_any_route(
    visitor: Visitor, stranger: Visitor, conversation: str, method: str, route: str, body: object, slash: str
):
    stranger.begin()
    before = visitor.hydrate(conversation)
    answers = []
    for wanted in (conversation, "no-such-conversation"):
        path, _, query = route.format(id=wanted, run="run").partition("?")
        sent = {**body, "id": wanted} if isinstance(body, dict) and "id" in body else body
        response = stranger.http.request(
            method, f"{path}{slash}?{query}", json=sent, headers={"x-csrftoken": stranger.csrf}
        )
        answers.append((response.status_code, response.json()))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    assert set(answers[0][1]) == {"error"}
    assert visitor.hydrate(conversation) == before
