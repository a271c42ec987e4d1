"""One run from acceptance to release: the only writer of conversation streams."""

import asyncio
import logging
import traceback
from contextlib import aclosing, suppress
from dataclasses import dataclass

from django.db import DatabaseError
from django.dispatch import Signal

from durable_chat.answers import Answer
from durable_chat.chunks import BadChunk, Chunk, run_error
from durable_chat.connections import in_database, in_thread
from durable_chat.exceptions import ProviderError
from durable_chat.messages import Prompt
from durable_chat.models import Run
from durable_chat.providers.base import ModelProvider
from durable_chat.runs import progress
from durable_chat.runs.claim import Claim, Fenced
from durable_chat.signals import run_failed, run_finished, run_started
from durable_chat.streams.client import Producer, StreamClient
from durable_chat.streams.protocol.errors import StaleEpoch, StreamError
from durable_chat.streams.protocol.offsets import START

log = logging.getLogger(__name__)

# One id for whoever writes a conversation: the epoch tells the writers apart, and fences the older ones.
PRODUCER_ID = "durable_chat"

STOPPED = "The answer was stopped."
NO_RESULT = "The answer ended without a result."
FAILED = "The assistant could not finish this answer. Try again."


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: its state, the terminal chunk for readers, the detail for the host's eyes."""

    state: Run.State
    terminal: Chunk
    reason: str = ""
    error: str = ""


class Execution:
    """A run on this process's background loop. `accepted` resolves when the send may be answered."""

    def __init__(
        self, claim: Claim, prompt: Prompt, *, streams: StreamClient, provider: ModelProvider
    ) -> None:
        self.claim = claim
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._prompt = prompt
        self._streams = streams
        self._provider = provider
        self._answer = Answer(thread_id=claim.conversation_id, run_id=claim.run_id)
        self._pumping: asyncio.Task[None] | None = None
        self._stopping = False
        self._lost = False

    def stop(self) -> None:
        """End the answer here, keep what there is, and say so to the readers."""
        self._stopping = True
        if self._pumping is not None:
            self._pumping.cancel()

    def lose(self) -> None:
        """The conversation is somebody else's now, or gone: end without a further write."""
        self._lost = True
        self.stop()

    async def run(self) -> None:
        """The whole life of the run. Raises nothing: what cannot be ended in order is left to recovery."""
        try:
            async with self._producer() as producer:
                await self._accept(producer)
                self.accepted.set_result(None)
                await self._write(producer)
        except (Fenced, StaleEpoch):
            log.warning("run %s was taken over", self.claim.run_id)
            self._end_early(StreamError("The conversation was taken over."))
            await self._bury()
        except StreamError as error:
            log.warning("run %s cannot write its stream: %s", self.claim.run_id, type(error).__name__)
            await self._abandon(error)
        except Exception as error:
            log.exception("run %s broke", self.claim.run_id)
            await self._abandon(error)

    async def _abandon(self, error: Exception) -> None:
        self._end_early(error)
        try:
            if not self._lost:
                await in_database(progress.abandon, self.claim)
        except DatabaseError:
            log.exception("run %s could not be given up; its lease will run out", self.claim.run_id)

    async def _bury(self) -> None:
        """If the conversation was deleted meanwhile, its stream may have been made anew for the echo."""
        if not await in_database(progress.exists, self.claim):
            with suppress(StreamError):
                await self._streams.delete(self.claim.stream_path)

    def _end_early(self, error: Exception) -> None:
        if not self.accepted.done():
            self.accepted.set_exception(error)

    def _producer(self) -> Producer:
        claim = self.claim
        return Producer(self._streams, claim.stream_path, id=PRODUCER_ID, epoch=claim.epoch)

    async def _accept(self, producer: Producer) -> None:
        """Echo, then rows, then RUN_STARTED: from here on a terminal chunk will follow, whoever dies.

        RUN_STARTED is an append of its own: its offset is one that a reader can resume from.
        """
        offset = self.claim.offset
        if offset == START:  # usually there since the save, unless the service was away then
            await self._streams.create(self.claim.stream_path)
        if self.claim.opening:
            offset = await producer.append(self.claim.opening)
        await in_database(progress.accepted, self.claim, offset)
        await producer.append([self._answer.started()])
        log.info("run %s of %s accepted", self.claim.run_id, self.claim.conversation_id)
        await self._tell(run_started)

    async def _write(self, producer: Producer) -> None:
        self._pumping = asyncio.create_task(self._pump(producer))
        if self._stopping:
            self._pumping.cancel()
        await asyncio.wait({self._pumping})
        if self._lost:
            return
        outcome = self._outcome(self._pumping)
        await in_database(progress.end, self.claim)
        last = self._answer.close(outcome.reason, failed=outcome.state != Run.State.DONE)
        offset = await producer.append([*last, outcome.terminal])
        await in_database(
            progress.release,
            self.claim,
            outcome.state,
            offset,
            messages=self._answer.messages,
            notice=outcome.terminal.get("message", ""),
            error=outcome.error,
            usage=self._answer.usage,
        )
        log.info("run %s of %s %s", self.claim.run_id, self.claim.conversation_id, outcome.state)
        failed = outcome.state == Run.State.FAILED
        await self._tell(run_failed if failed else run_finished, state=str(outcome.state))

    async def _pump(self, producer: Producer) -> None:
        """From the provider to the producer."""
        async with aclosing(self._provider.stream(self._prompt)) as items:
            async for item in items:
                for chunk in self._answer.chunks(item):
                    self._answer.stored(chunk)  # before the wait: a stop in it does not unsend the chunk
                    await producer.add(chunk)

    def _outcome(self, pumping: "asyncio.Task[None]") -> Outcome:
        """Raises the producer's own error: without the stream there is no end to be written."""
        if pumping.cancelled() and self._stopping:
            return Outcome(Run.State.STOPPED, self._error(STOPPED, "stopped"), reason=STOPPED)
        error = asyncio.CancelledError() if pumping.cancelled() else pumping.exception()
        if error is None:
            return Outcome(Run.State.DONE, self._answer.finished(), reason=NO_RESULT)
        if isinstance(error, StreamError):
            raise error
        detail = _described(error)
        log.error("provider of run %s failed: %s", self.claim.run_id, detail)
        text = error.public if isinstance(error, ProviderError) else FAILED
        return Outcome(Run.State.FAILED, self._error(text, "provider_failed"), reason=text, error=detail)

    def _error(self, text: str, code: str) -> Chunk:
        claim = self.claim
        return run_error(text, thread_id=claim.conversation_id, run_id=claim.run_id, code=code)

    async def _tell(self, signal: Signal, **extra: str) -> None:
        claim = self.claim
        answers = await in_thread(
            signal.send_robust, Run, run_id=claim.run_id, conversation_id=claim.conversation_id, **extra
        )
        for receiver, error in answers:
            if isinstance(error, Exception):
                log.error("receiver %r of run %s failed: %s", receiver, claim.run_id, type(error).__name__)


def _described(error: BaseException) -> str:
    """Which error, and where it was raised: not its text, which may quote a key or what was said.

    The sentence of a BadChunk is our own, and says what to yield instead.
    """
    if isinstance(error, BadChunk):
        return f"BadChunk: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(
        [type(error).__name__, *(f"{f.filename}:{f.lineno} {f.name}" for f in reversed(frames))]
    )
