"""What answers a prompt."""

from collections.abc import AsyncGenerator
from typing import Protocol

from durable_chat.chunks import Chunk
from durable_chat.messages import Prompt


class ModelProvider(Protocol):
    """A model, or whatever writes like one.

    ``stream`` is an async generator: it is closed with ``aclose`` when the run stops, so what it holds
    belongs in a ``with`` or ``finally``. It yields a str for a piece of the answer's text, and chunks for
    everything else (reasoning, tool calls). What it raises ends the run: the sentence of a ProviderError is
    shown to users, that of anything else is not.
    """

    def stream(self, prompt: Prompt) -> AsyncGenerator[str | Chunk, None]: ...
