"""A provider without a model: the default, which needs no key and always says the same."""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from typing import Final

from durable_chat.chunks import (
    Chunk,
    reasoning_end,
    reasoning_message_content,
    reasoning_message_end,
    reasoning_message_start,
    reasoning_start,
    tool_call_args,
    tool_call_end,
    tool_call_result,
    tool_call_start,
)
from durable_chat.exceptions import ProviderError
from durable_chat.messages import Prompt

MAX_WORDS: Final = 100_000
MAX_DELAY_MS: Final = 60_000
_WORDS: Final = re.compile(r"\bwords=(\d{1,9})\b")
_DELAY: Final = re.compile(r"\bdelay=(\d{1,9})\b")
_REASONING: Final = re.compile(r"\b(?:reason|think)(?:ing)?\b", re.IGNORECASE)
_TOOL: Final = re.compile(r"\btool\b", re.IGNORECASE)
_ERROR: Final = re.compile(r"\berror\b", re.IGNORECASE)


class ScriptedProvider:
    """Answers by rule.

    A prompt with ``words=N`` is answered with exactly ``w0 w1 … w{N-1} ``, one item a word, without delay.
    Any other prompt is quoted in a short text, a word every ``delay_ms``; if it says "reasoning" or "think",
    "tool" or "error", it is shown reasoning, a tool call or a failure. ``delay=MS`` sets the delay of either.
    """

    def __init__(self, delay_ms: int = 15) -> None:
        self._delay_ms = delay_ms

    async def stream(self, prompt: Prompt) -> AsyncGenerator[str | Chunk, None]:
        asked = _asked(prompt)
        words = _WORDS.search(asked)
        delay = _DELAY.search(asked)
        default = 0 if words else self._delay_ms
        seconds = min(int(delay[1]) if delay else default, MAX_DELAY_MS) / 1000
        script = _counted(int(words[1])) if words else _play(asked, run_id=prompt.run_id)
        for item in script:
            await asyncio.sleep(seconds)
            yield item


def _asked(prompt: Prompt) -> str:
    return next((message.text() for message in reversed(prompt.messages) if message.role == "user"), "")


def _counted(count: int) -> Iterator[str]:
    return (f"w{index} " for index in range(min(count, MAX_WORDS)))


def _play(asked: str, *, run_id: str) -> Iterator[str | Chunk]:
    if _REASONING.search(asked):
        yield from _reasoning(f"{run_id}-reasoning")
    if _TOOL.search(asked):
        yield from _tool_call(f"{run_id}-tool")
    if _ERROR.search(asked):
        yield from _spoken("This answer begins well, and then")
        raise ProviderError("The scripted model failed, as it was asked to.")
    yield from _spoken(
        f"You wrote: “{asked}”. This is the scripted provider, which needs no model and no key."
    )


def _spoken(text: str) -> Iterator[str]:
    """The text word by word; joined, the pieces are the text."""
    return iter(re.findall(r"\S+\s*|\s+", text))


def _reasoning(message_id: str) -> Iterator[Chunk]:
    yield reasoning_start(message_id)
    yield reasoning_message_start(message_id)
    for piece in _spoken("The prompt asks for thoughts, so here are some before the answer."):
        yield reasoning_message_content(message_id, piece)
    yield reasoning_message_end(message_id)
    yield reasoning_end(message_id)


def _tool_call(call_id: str) -> Iterator[Chunk]:
    yield tool_call_start(call_id, "weather")
    for piece in ('{"city"', ': "Ber', 'lin"}'):
        yield tool_call_args(call_id, piece)
    yield tool_call_end(call_id)
    yield tool_call_result(call_id, f"{call_id}-result", {"city": "Berlin", "celsius": 21})
