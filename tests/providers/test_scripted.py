"""The scripted provider says what its prompt asks it to say."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_chat import chunks
from durable_chat.exceptions import ProviderError
from durable_chat.messages import Message, Prompt, fold
from durable_chat.providers import scripted
from durable_chat.providers.scripted import MAX_WORDS, ScriptedProvider
from tests.providers.contract import ProviderContract, heard, prompt

AT_ONCE = ScriptedProvider(delay_ms=0)


class TestScripted(ProviderContract):
    chatty = "think, then use a tool"

    @pytest.fixture
    def provider(self) -> ScriptedProvider:
        return AT_ONCE


class TestScriptedWords(ProviderContract):
    chatty = "words=5"

    @pytest.fixture
    def provider(self) -> ScriptedProvider:
        return AT_ONCE


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the provider makes, which take no time here."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(scripted.asyncio, "sleep", sleep)
    return pauses


@pytest.mark.parametrize(
    "text", ["words=3", "Please: words=3.", "words=3 delay=0", "think, tool, error, words=3"]
)
async def test_words_are_counted_and_nothing_else_is_said(text: str) -> None:
    assert await heard(AT_ONCE, prompt(text)) == ["w0 ", "w1 ", "w2 "]


async def test_no_words_are_no_answer() -> None:
    assert await heard(AT_ONCE, prompt("words=0")) == []


async def test_words_are_limited(slept: list[float]) -> None:
    assert len(await heard(AT_ONCE, prompt("words=999999999"))) == MAX_WORDS


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("words=2 delay=250", 0.25),
        ("words=2", 0.0),
        ("delay=999999999 words=2", 60.0),
        ("hello", 0.015),
        ("hello delay=1", 0.001),
    ],
)
async def test_the_delay_is_between_words(slept: list[float], text: str, seconds: float) -> None:
    items = await heard(ScriptedProvider(), prompt(text))
    assert slept == [seconds] * len(items)


async def test_any_other_prompt_is_quoted_word_by_word() -> None:
    items = await heard(AT_ONCE, prompt("What is  a\nstream?"))
    assert all(isinstance(item, str) and len(item.split()) == 1 for item in items)
    assert "What is  a\nstream?" in "".join(map(str, items))


@given(st.text(min_size=1))
async def test_the_quotation_loses_nothing(text: str) -> None:
    asked = text.replace("=", "-").replace("r", "-").replace("o", "-").replace("k", "-")
    assert asked in "".join(map(str, await heard(AT_ONCE, prompt(asked))))


async def test_it_answers_the_newest_message_of_the_user() -> None:
    later = Message("a1", "assistant", ({"type": "text", "content": "words=9"},))
    asked = prompt("words=1")
    assert await heard(AT_ONCE, Prompt("c", "r", (*asked.messages, later), {})) == ["w0 "]


@pytest.mark.parametrize("text", ["reasoning please", "Think!", "show me your thinking"])
async def test_it_shows_its_reasoning_first(text: str) -> None:
    items = await heard(AT_ONCE, prompt(text))
    kinds = [item["type"] for item in items if isinstance(item, dict)]
    assert kinds[:3] == ["REASONING_START", "REASONING_MESSAGE_START", "REASONING_MESSAGE_CONTENT"]
    assert kinds[-2:] == ["REASONING_MESSAGE_END", "REASONING_END"]
    assert isinstance(items[-1], str)


async def test_it_shows_a_tool_call() -> None:
    items: list[Any] = await heard(AT_ONCE, prompt("Use a tool", run_id="r1"))
    (message,) = fold([chunks.text_start("m"), *(item for item in items if isinstance(item, dict))])
    call, result = message.parts
    assert call["state"] == "complete"
    assert call["input"] == {"city": "Berlin"}
    assert call["id"].startswith("r1")
    assert result["state"] == "complete"


async def test_it_fails_after_a_few_words() -> None:
    items = AT_ONCE.stream(prompt("an error, please"))
    assert all([isinstance(await anext(items), str) for _ in range(3)])
    with pytest.raises(ProviderError, match="as it was asked to") as caught:
        await drained(items)
    assert caught.value.public == "The scripted model failed, as it was asked to."


async def drained(items: Any) -> None:
    async for _ in items:
        pass


@pytest.mark.parametrize("text", ["Toolbox", "rethinking", "terrors", "wordsworth words=x", "mywords=3"])
async def test_only_whole_words_count(text: str) -> None:
    items = await heard(AT_ONCE, prompt(text))
    assert all(isinstance(item, str) for item in items)
    assert text in "".join(map(str, items))
