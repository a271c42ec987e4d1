"""What every provider keeps to. A provider's tests inherit these cases and say what to ask."""

import asyncio
from abc import ABC, abstractmethod
from contextlib import aclosing
from typing import Any

import pytest

from durable_chat.chunks import Chunk, sanitize
from durable_chat.messages import Message, Prompt
from durable_chat.providers.base import ModelProvider


def prompt(text: str, *, run_id: str = "r") -> Prompt:
    """A conversation whose newest message says this."""
    earlier = Message("u0", "user", ({"type": "text", "content": "Hi, words=3"},))
    answered = Message("a0", "assistant", ({"type": "text", "content": "w0 w1 w2 "},))
    newest = Message("u1", "user", ({"type": "text", "content": text},))
    return Prompt("c", run_id, (earlier, answered, newest), {})


async def heard(provider: ModelProvider, asked: Prompt) -> list[str | Chunk]:
    async with aclosing(provider.stream(asked)) as items:  # type: ignore[type-var]
        return [item async for item in items]


class ProviderContract(ABC):
    """``chatty`` is a prompt whose answer has at least three items, one of them a text."""

    chatty: str

    @pytest.fixture
    @abstractmethod
    def provider(self) -> Any: ...

    async def test_it_yields_texts_and_chunks_that_can_be_stored(self, provider: ModelProvider) -> None:
        items = await heard(provider, prompt(self.chatty))
        assert len(items) >= 3
        assert any(isinstance(item, str) for item in items)
        for item in items:
            assert isinstance(item, str) or sanitize(item) == item

    async def test_it_answers_each_prompt_anew(self, provider: ModelProvider) -> None:
        first, second = await asyncio.gather(
            heard(provider, prompt(self.chatty)), heard(provider, prompt(self.chatty))
        )
        assert first == second

    async def test_it_can_be_closed_in_the_middle_of_an_answer(self, provider: ModelProvider) -> None:
        items = provider.stream(prompt(self.chatty))
        async with aclosing(items):  # type: ignore[type-var]
            await anext(items)
        with pytest.raises(StopAsyncIteration):
            await anext(items)

    async def test_it_can_be_cancelled_while_it_waits(self, provider: ModelProvider) -> None:
        began = asyncio.Event()

        async def listen() -> None:
            async with aclosing(provider.stream(prompt(self.chatty))) as items:  # type: ignore[type-var]
                async for _ in items:
                    began.set()
                    await asyncio.Event().wait()

        listening = asyncio.create_task(listen())
        await began.wait()
        listening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listening

    async def test_it_leaves_its_prompt_alone(self, provider: ModelProvider) -> None:
        asked = prompt(self.chatty)
        await heard(provider, asked)
        assert asked == prompt(self.chatty)
