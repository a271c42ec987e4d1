"""A host's own async generator as a provider."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from durable_chat import chunks
from durable_chat.chunks import Chunk
from durable_chat.messages import Prompt
from durable_chat.providers.callable import CallableProvider
from tests.providers.contract import ProviderContract, heard, prompt

HERE = __name__
ended: list[str] = []


async def answer(asked: Prompt) -> AsyncIterator[str | Chunk]:
    try:
        yield f"{len(asked.messages)} messages, "
        yield chunks.custom("remark", {"percent": 50})
        yield asked.messages[-1].text()
    finally:
        ended.append(asked.run_id)


class Answers:
    """Not a generator, but it can be iterated."""

    def __init__(self, asked: Prompt) -> None:
        self.left = [asked.messages[-1].text(), "b", "c"]

    def __aiter__(self) -> "Answers":
        return self

    async def __anext__(self) -> str:
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)


async def no_generator(asked: Prompt) -> str:
    return "one string"


def no_async_generator(asked: Prompt) -> Iterator[str]:
    yield "one string"


def says_nothing(asked: Prompt) -> None:
    return None


async def forgets_to_yield(asked: Prompt) -> str:
    return "one string"


def promises(asked: Prompt) -> Any:
    return forgets_to_yield(asked)


async def takes_nothing() -> AsyncIterator[str]:
    yield "one string"


async def takes_a_key_too(asked: Prompt, *, key: str) -> AsyncIterator[str]:
    yield "one string"


number = 7


class TestFunction(ProviderContract):
    chatty = "hello"

    @pytest.fixture
    def provider(self) -> CallableProvider:
        return CallableProvider(answer)


class TestDottedPath(ProviderContract):
    chatty = "hello"

    @pytest.fixture
    def provider(self) -> CallableProvider:
        return CallableProvider(f"{HERE}.answer")


class TestIterable(ProviderContract):
    chatty = "hello"

    @pytest.fixture
    def provider(self) -> CallableProvider:
        return CallableProvider(Answers)


async def test_it_says_what_the_generator_says() -> None:
    items = await heard(CallableProvider(f"{HERE}.answer"), prompt("hello"))
    assert items == ["3 messages, ", chunks.custom("remark", {"percent": 50}), "hello"]


async def test_closing_it_closes_the_generator() -> None:
    items = CallableProvider(answer).stream(prompt("hello", run_id="closed"))
    await anext(items)
    assert "closed" not in ended
    await items.aclose()  # type: ignore[attr-defined]
    assert "closed" in ended


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("answer", "is not a dotted path"),
        ("no_such_package.answer", "cannot be imported"),
        (f"{HERE}.no_such_answer", "has no 'no_such_answer'"),
    ],
)
def test_a_path_names_something(path: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        CallableProvider(path)


@pytest.mark.parametrize("name", ["no_generator", "no_async_generator"])
def test_what_cannot_stream_is_refused_at_once(name: str) -> None:
    with pytest.raises(TypeError, match=rf"{name}.* must be an async generator function"):
        CallableProvider(f"{HERE}.{name}")


@pytest.mark.parametrize("name", ["takes_nothing", "takes_a_key_too"])
def test_what_does_not_take_a_prompt_is_refused_at_once(name: str) -> None:
    with pytest.raises(TypeError, match=rf"{name}.* one argument, the prompt"):
        CallableProvider(f"{HERE}.{name}")


def test_what_cannot_be_called_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="cannot be called"):
        CallableProvider(f"{HERE}.number")


@pytest.mark.parametrize("name", ["says_nothing", "promises"])
async def test_what_returns_no_stream_is_refused_when_it_is_asked(name: str) -> None:
    with pytest.raises(TypeError, match="must be an async generator function"):
        await heard(CallableProvider(f"{HERE}.{name}"), prompt("hello"))
