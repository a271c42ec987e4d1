"""The host's own async generator as a provider."""

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

from durable_chat.chunks import Chunk
from durable_chat.messages import Prompt


class CallableProvider:
    """Streams what ``async def answer(prompt: Prompt) -> AsyncIterator[str | Chunk]`` yields.

    ``source`` is that function or its dotted path; anything that returns an async iterable will do. Raises
    ValueError for a path that names nothing, TypeError for what cannot stream.
    """

    def __init__(self, source: str | Callable[[Prompt], AsyncIterable[str | Chunk]]) -> None:
        self._name = source if isinstance(source, str) else getattr(source, "__qualname__", repr(source))
        self._answer = _imported(source) if isinstance(source, str) else source
        if not callable(self._answer):
            raise TypeError(f"The provider {self._name!r} cannot be called.")
        with suppress(ValueError):  # without a signature, as some in C
            _check_parameters(self._answer, self._name)
        if inspect.iscoroutinefunction(self._answer) or inspect.isgeneratorfunction(self._answer):
            raise TypeError(self._complaint())

    async def stream(self, prompt: Prompt) -> AsyncGenerator[str | Chunk, None]:
        items = self._answer(prompt)
        if inspect.iscoroutine(items):
            items.close()  # a plain `async def` behind a wrapper: it would never be awaited
        if not isinstance(items, AsyncIterable):
            raise TypeError(self._complaint())
        try:
            async for item in items:
                yield item
        finally:
            if inspect.isasyncgen(items):
                await items.aclose()

    def _complaint(self) -> str:
        return f"The provider {self._name!r} must be an async generator function: `async def` with `yield`."


def _check_parameters(answer: Callable[..., Any], name: str) -> None:
    """Raises TypeError when it does not take a prompt alone, ValueError when that cannot be known."""
    signature = inspect.signature(answer)
    try:
        signature.bind(None)
    except TypeError as error:
        raise TypeError(f"The provider {name!r} is called with one argument, the prompt: {error}.") from None


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    if not module:
        raise ValueError(f"The provider {path!r} is not a dotted path: write 'package.module.function'.")
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        raise ValueError(f"The provider {path!r} cannot be imported: {error}.") from error
    except AttributeError as error:
        raise ValueError(
            f"The module {module!r} has no {name!r}, which the provider setting names."
        ) from error
