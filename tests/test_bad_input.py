"""Whatever is sent to whichever door: an answer, or JSON that says what is wrong with it; never a failure."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Chatter
from tests.test_read import bare
from tests.test_read import django as django_door

once = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])

NASTY = ("", "\0", "\n", "\ud800", "\u202e", "٣", "..", "a/b", "%00", "-1", "now", "9" * 5000, "x" * 300)
texts = st.sampled_from(NASTY) | st.text(max_size=8)
numbers = st.integers() | st.floats() | st.sampled_from([2**63, 10**400, -(2**64)])
deep = st.integers(1, 2000).map(lambda depth: b'{"metadata": %b%b}' % (b"[" * depth, b"]" * depth))
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "file", "image"]) | values},
    optional=dict.fromkeys(("text", "content", "url", "mediaType", "filename", "source"), texts | values),
)
messages = st.fixed_dictionaries(
    {"role": st.just("user") | values},
    optional={"id": values, "parts": st.lists(parts | values, max_size=3) | values, "metadata": values},
)
bodies = values | st.fixed_dictionaries(
    {},
    optional={
        "id": values,
        "title": values,
        "metadata": values,
        "messages": st.lists(messages | values, max_size=3) | values,
        "trigger": st.sampled_from(["submit-message", "regenerate-message"]) | values,
        "messageId": values,
        "data": values,
        "user": values,
        "role": st.sampled_from(["reader", "writer"]) | values,
    },
)
written = deep | st.binary(max_size=20) | bodies.map(lambda body: json.dumps(body).encode())
segments = texts.filter(lambda text: text and "/" not in text)
WRITERS = [
    ("POST", "/api/conversations"),
    ("PATCH", "/api/conversations/{id}"),
    ("POST", "/api/conversations/{id}/members"),
    ("PATCH", "/api/conversations/{id}/members/ada"),
    ("POST", "/api/chat?id={id}"),
    ("POST", "/api/chat"),
    ("DELETE", "/api/chat"),
]
NAMED = [
    ("GET", "/api/conversations/{name}"),
    ("PATCH", "/api/conversations/{name}"),
    ("DELETE", "/api/conversations/{name}"),
    ("POST", "/api/conversations/{name}/members"),
    ("PATCH", "/api/conversations/{id}/members/{name}"),
    ("DELETE", "/api/conversations/{id}/members/{name}"),
    ("GET", "/api/chat/{name}/stream"),
    ("POST", "/api/chat/{name}/stop"),
    ("DELETE", "/api/chat/{id}/queue/{name}"),
]


def encoded(text: str) -> str:
    return quote(text.encode(errors="surrogatepass"), safe="")


def check(status: int, headers: Mapping[str, str], content: bytes) -> None:
    assert status < 500, content
    if status >= 400:
        assert headers["content-type"] == "application/json", content
        told = json.loads(content)
        assert told.keys() - {"activeRun"} == {"error"}
        assert told["error"].endswith("."), told


async def asked(chatter: Chatter, method: str, path: str, body: bytes = b"", **headers: str) -> int:
    response = await chatter.http.generic(
        method, path, body, content_type="application/json", headers=headers
    )
    content = b"" if response.streaming else response.content
    check(response.status_code, {name.lower(): value for name, value in response.headers.items()}, content)
    return int(response.status_code)


@pytest.mark.parametrize(("method", "path"), WRITERS)
@once
@given(body=written)
async def test_any_body(ada: Chatter, method: str, path: str, body: bytes) -> None:
    await asked(ada, method, path.format(id=ada.id), body)


said = st.fixed_dictionaries(
    {"type": st.just("text"), "content": texts.map("!{}".format), "text": texts.map("!{}".format)},
    optional={"metadata": st.dictionaries(texts, values, max_size=2)},
)
sends = st.fixed_dictionaries(
    {
        "messages": st.tuples(
            st.fixed_dictionaries(
                {"role": st.just("user"), "parts": st.lists(said, min_size=1, max_size=2)},
                optional={"id": st.text(max_size=3), "metadata": st.dictionaries(texts, values, max_size=2)},
            )
        )
    },
    optional={
        "trigger": st.sampled_from(["submit-message", "regenerate-message"]),
        "data": st.dictionaries(texts, values, max_size=2),
        "messageId": values,
        "x": values,
    },
)


@once
@given(body=sends)
async def test_any_send_that_could_be_right(ada: Chatter, body: dict[str, Any]) -> None:
    await asked(ada, "POST", f"/api/chat?id={ada.id}", json.dumps(body).encode())
    await ada.idle()
    for dialect in ("tanstack", "ai-sdk"):
        await asked(ada, "GET", f"/api/conversations/{ada.id}?as={dialect}")


@pytest.mark.parametrize(("method", "path"), NAMED)
@once
@given(name=segments)
async def test_any_name(ada: Chatter, method: str, path: str, name: str) -> None:
    await asked(ada, method, path.format(id=ada.id, name=encoded(name)), b'{"role": "reader"}')


@pytest.fixture
def no_patience(settings: Any) -> None:
    settings.DURABLE_STREAMS = {**settings.DURABLE_STREAMS, "LONG_POLL_SECONDS": 0}


@pytest.mark.usefixtures("no_patience")
@pytest.mark.parametrize("door", [bare, django_door])
@once
@given(
    query=st.dictionaries(st.sampled_from(["id", "offset", "cursor", "run", "as", "x"]) | texts, texts),
    live=st.sampled_from([{}, {"live": "sse"}, {"live": "long-poll"}])
    | st.fixed_dictionaries({"live": texts}),
    own=st.booleans(),
)
async def test_any_query(
    ada: Chatter, door: Any, query: dict[str, str], live: dict[str, str], own: bool
) -> None:
    named = {**query, **live} | ({"id": ada.id} if own else {})
    sent = "&".join(f"{encoded(name)}={encoded(value)}" for name, value in named.items())
    async with door(ada.http, f"/api/chat-stream?{sent}") as answer:
        check(answer.status, answer.headers, b"" if answer.status < 400 else await answer.body())


@pytest.fixture
def own_keys(settings: Any) -> None:
    settings.DURABLE_CHAT = {**settings.DURABLE_CHAT, "USER_KEYS": "optional"}


HEADERS = (
    "cookie",
    "origin",
    "if-none-match",
    "accept",
    "content-type",
    "x-csrftoken",
    "x-api-key",
    "x-byok-a",
)
NUL = r'sessionid="\000abcdefgh";'
lines = st.sampled_from([NUL, "https://[", "https://a:99999", "*", "multipart/form-data"])
lines = lines | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@pytest.mark.usefixtures("own_keys")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        *WRITERS,
        ("GET", "/api/conversations"),
        ("GET", "/api/chat-stream?id={id}"),
        ("GET", "/api/chat/{id}/stream"),
    ],
)
@once
@given(headers=st.dictionaries(st.sampled_from(HEADERS), lines))
async def test_any_header(ada: Chatter, method: str, path: str, headers: dict[str, str]) -> None:
    await asked(ada, method, path.format(id=ada.id), b"{}", **headers)


@pytest.mark.parametrize("door", [bare, django_door])
async def test_a_session_that_no_database_can_look_for(chatter: Chatter, door: Any) -> None:
    chatter.http.cookies.clear()
    async with door(chatter.http, f"/api/chat-stream?id={chatter.id}", cookie=NUL) as answer:
        assert answer.status == (400 if connection.vendor == "postgresql" else 404)
        assert list(await answer.json()) == ["error"]
