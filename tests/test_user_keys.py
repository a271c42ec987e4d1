"""USER_KEYS: a user's own key reaches the one run's model, and nothing else."""

import asyncio
import os
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.views.debug import get_default_exception_reporter_filter

from durable_chat import conf
from durable_chat.exceptions import ProviderError
from durable_chat.keys import ModelKey, key_of, own_keys
from durable_chat.models import Conversation, Message, Run
from tests.conftest import Chatter, the_run

SITE = "sk-site-sentinel"
SEEN: dict[str, tuple[str, dict[str, str]]] = {}


@pytest.fixture(autouse=True)
def seen() -> None:
    SEEN.clear()


def configured(policy: str, backend: str = "telling") -> dict[str, Any]:
    provider = {"BACKEND": f"tests.test_user_keys.{backend}", "API_KEY": SITE}
    return {"USER_KEYS": policy, "PROVIDER": provider}


async def telling(prompt: Any) -> Any:
    """Notes the keys that it gets, a while after it has begun."""
    yield "one "
    await asyncio.sleep(0.05)
    named = {name: key.reveal() for name, key in prompt.own_keys.items()}
    SEEN[prompt.messages[-1].text()] = prompt.api_key, named
    assert not any(prompt.api_key in value for value in os.environ.values())
    yield "two"


async def send(chatter: Chatter, text: str, *, id: str | None = None, **headers: str) -> Any:
    message = {"id": id or text, "role": "user", "parts": [{"type": "text", "content": text}]}
    return await chatter.post(f"/api/chat?id={chatter.id}", {"messages": [message]}, **headers)


OWN = {"x-api-key": "sk-own"}
NAMED = {"x-byok-openai": "sk-named"}


@pytest.mark.parametrize(
    ("policy", "headers", "got"),
    [
        ("forbidden", {}, (SITE, {})),
        ("forbidden", OWN | NAMED, (SITE, {})),
        ("optional", {}, (SITE, {})),
        ("optional", OWN, ("sk-own", {"": "sk-own"})),
        ("optional", NAMED, ("sk-named", {"openai": "sk-named"})),
        ("required", OWN | NAMED, ("sk-own", {"": "sk-own", "openai": "sk-named"})),
        ("required", NAMED | {"X-BYOK-Other-2": "b"}, ("", {"openai": "sk-named", "other-2": "b"})),
    ],
)
async def test_which_key_a_model_gets(
    chatter: Chatter, settings: Any, policy: str, headers: dict[str, str], got: Any
) -> None:
    settings.DURABLE_CHAT = configured(policy)
    assert (await send(chatter, "hello", **headers)).status_code == 202
    await chatter.idle()
    assert {"hello": got} == SEEN


@pytest.mark.parametrize("headers", [{}, {"x-api-key": ""}, {"x-byok-": "k"}, {"x-byok-1": "k"}])
async def test_a_required_key_is_asked_for(chatter: Chatter, settings: Any, headers: dict[str, str]) -> None:
    settings.DURABLE_CHAT = configured("required")
    refused = await send(chatter, "hello", **headers)
    assert (refused.status_code, list(refused.json())) == (401, ["error"])
    assert "x-api-key" in refused.json()["error"]
    assert not await Run.objects.aexists()


async def test_users_at_once_on_their_own_keys(site: None, settings: Any) -> None:
    settings.DURABLE_CHAT = configured("required")
    people = [Chatter() for _ in range(6)]
    for person in people:
        await person.begin()
    keys = [f"sk-{number}" for number in range(6)]
    sent = (send(person, key, **{"x-api-key": key}) for person, key in zip(people, keys, strict=True))
    assert {response.status_code for response in await asyncio.gather(*sent)} == {202}
    await people[0].idle()
    assert {key: (key, {"": key}) for key in keys} == SEEN


async def test_a_send_that_attaches_changes_no_key(chatter: Chatter, settings: Any) -> None:
    settings.DURABLE_CHAT = configured("required")
    await send(chatter, "hello", **{"x-api-key": "sk-first"})
    await send(chatter, "hello", **{"x-api-key": "sk-second"})
    await chatter.idle()
    assert SEEN["hello"][0] == "sk-first"


async def quoting(prompt: Any) -> Any:
    yield "One moment"
    raise RuntimeError(f"401: the key {prompt.api_key} is wrong")


async def quoting_to_users(prompt: Any) -> Any:
    yield "One moment"
    raise ProviderError(f"Your key {prompt.own_keys['x'].reveal()} is wrong")


async def quoting_when_closed(prompt: Any) -> Any:
    try:
        yield "One moment"
        await asyncio.sleep(60)
    finally:
        raise RuntimeError(f"{prompt.api_key} is still in use")


@pytest.mark.parametrize("backend", ["quoting", "quoting_to_users", "quoting_when_closed"])
async def test_a_model_that_quotes_the_key_tells_it_to_nobody(
    chatter: Chatter, settings: Any, caplog: pytest.LogCaptureFixture, backend: str
) -> None:
    caplog.set_level(0)
    settings.DURABLE_CHAT = configured("required", backend)
    await send(chatter, "hello", **{"x-byok-x": "sk-sentinel"})
    if backend == "quoting_when_closed":
        await chatter.post(f"/api/chat/{chatter.id}/stop", {})
    await chatter.idle()
    assert (await the_run(chatter.id)).state in ("failed", "stopped")
    rows = [vars(row) for model in (Conversation, Message, Run) async for row in model.objects.all()]
    for told in (await chatter.chunks(), await chatter.hydrate(), rows, caplog.text):
        assert "sk-sentinel" not in str(told)


@pytest.mark.parametrize(
    ("key", "value"), [("WHEN_BUSY", "queue"), ("WHEN_BUSY", "interrupt"), ("LAUNCHER", "tasks")]
)
def test_what_waits_as_a_row_takes_no_keys(db: None, settings: Any, key: str, value: str) -> None:
    settings.DURABLE_CHAT = {"USER_KEYS": "optional", key: value}
    with pytest.raises(SystemCheckError, match=f"USER_KEYS.*{key}"):
        call_command("check")
    settings.DURABLE_CHAT = {key: value}
    assert not list(conf.problems(conf.raw()))


def test_error_reports_must_hide_the_headers(db: None, settings: Any, request: pytest.FixtureRequest) -> None:
    settings.DURABLE_CHAT = {"USER_KEYS": "optional"}
    call_command("check")
    settings.DEFAULT_EXCEPTION_REPORTER_FILTER = "django.views.debug.SafeExceptionReporterFilter"
    request.addfinalizer(get_default_exception_reporter_filter.cache_clear)
    get_default_exception_reporter_filter.cache_clear()
    with pytest.raises(SystemCheckError, match="KeysHidden"):
        call_command("check")
    settings.DURABLE_CHAT = {}
    call_command("check")


def test_which_headers_are_keys() -> None:
    assert own_keys({"X-Api-Key": "a", "x-byok-a-1": "b", "x-byok-A_b": "c", "authorization": "d"}) == {
        "": ModelKey("a"),
        "a-1": ModelKey("b"),
    }
    assert own_keys({"x-byok-" + "a" * 65: "k", "y-x-api-key": "k", "x-byok-a": ""}) == {}


def test_a_key_is_never_a_guess() -> None:
    site, a, b = ModelKey("site"), ModelKey("a"), ModelKey("b")
    assert key_of({}, site) == site
    assert key_of({"x": a}, site) == a
    assert key_of({"x": a, "": b}, site) == b
    assert not key_of({"x": a, "y": b}, site)
