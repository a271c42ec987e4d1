"""From the provider to the stream, within the limits, until it is done or cut short."""

import asyncio
import math
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Self

import orjson

from durable_chat import conf
from durable_chat.answers import Answer
from durable_chat.chunks import Chunk
from durable_chat.messages import Prompt
from durable_chat.providers.base import ModelProvider
from durable_chat.runs import strays
from durable_chat.runs.ends import LONG, SILENT, SLOW, WHOLE, End, failed
from durable_chat.streams.client import Producer
from durable_chat.streams.protocol.errors import StreamError

CLOSE_SECONDS: Final = 5.0  # what a provider gets to close, once its answer has been cut short


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an answer may take, how long its provider may yield nothing, how much JSON it may be."""

    seconds: float
    silence_seconds: float
    size: int

    @classmethod
    def current(cls) -> Self:
        """Those of the settings."""
        settings = conf.get()
        return cls(settings.run_seconds, settings.silence_seconds, settings.answer_bytes)


class Pump:
    """One answer's way into its stream. Whoever resolves `cut` ends it early, as the pump itself does."""

    def __init__(
        self,
        provider: ModelProvider,
        prompt: Prompt,
        *,
        answer: Answer,
        producer: Producer,
        limits: Limits,
        cut: "asyncio.Future[End]",
    ) -> None:
        self._provider = provider
        self._prompt = prompt
        self._answer = answer
        self._producer = producer
        self._limits = limits
        self._cut = cut
        self._size = 0
        self._clock = asyncio.get_running_loop().time
        self._heard = self._clock()  # when the provider last yielded; never, while it is not its turn

    async def run(self) -> End:
        """How the answer ends. Raises StreamError: without the stream there is no end to be written.

        The provider is closed when this returns, unless it does not let itself be closed in time.
        """
        pumping = asyncio.create_task(self._pump(), name=f"the provider of run {self._prompt.run_id}")
        await self._watch(pumping)
        if pumping.done() or await strays.end(pumping, seconds=CLOSE_SECONDS):
            return await self._end_of(pumping)
        return self._cut.result()

    async def _end_of(self, pumping: "asyncio.Task[bool]") -> End:
        error = asyncio.CancelledError() if pumping.cancelled() else pumping.exception()
        if isinstance(error, StreamError):
            raise error
        if error is None and pumping.result():
            return WHOLE
        if error is None or self._cut.done():
            return self._cut.result()  # what is raised after the cut comes of being closed
        return await failed(error, self._prompt)

    async def _pump(self) -> bool:
        """Whether everything that the provider had to say is on its way."""
        async with aclosing(self._provider.stream(self._prompt)) as items:
            async for item in items:
                self._heard = math.inf
                for chunk in self._answer.chunks(item):
                    if not self._fits(chunk):
                        return False
                    self._answer.stored(chunk)  # before the wait: a cut in it does not unsend the chunk
                    await self._producer.add(chunk)
                self._heard = self._clock()
        return not self._cut.done()  # nor one that ends in peace when it is cancelled

    def _fits(self, chunk: Chunk) -> bool:
        """Not once the answer has been cut short: its provider may take no notice of its cancellation."""
        self._size += len(orjson.dumps(chunk))
        if self._size > self._limits.size and not self._cut.done():
            self._cut.set_result(LONG)
        return not self._cut.done()

    async def _watch(self, pumping: "asyncio.Task[bool]") -> None:
        """Until the pump is done or the answer is cut short, for one by the limits of time."""
        either: set[asyncio.Future[Any]] = {pumping, self._cut}
        end = self._clock() + self._limits.seconds
        while not (pumping.done() or self._cut.done()):
            due = min(end, self._heard + self._limits.silence_seconds)
            left = due - self._clock()
            if left <= 0:
                self._cut.set_result(SLOW if due == end else SILENT)
                return
            await asyncio.wait(either, timeout=left, return_when=asyncio.FIRST_COMPLETED)
