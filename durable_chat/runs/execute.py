"""One run from acceptance to release: the only writer of conversation streams."""

import asyncio
import logging
from contextlib import suppress

from django.db import DatabaseError

from durable_chat.answers import Answer
from durable_chat.chunks import Chunk, run_error
from durable_chat.connections import in_database
from durable_chat.messages import Prompt
from durable_chat.models import Run
from durable_chat.providers.base import ModelProvider
from durable_chat.runs import ends, journal, line, progress
from durable_chat.runs.claim import Claim, Fenced
from durable_chat.runs.ends import End
from durable_chat.runs.mending import sow
from durable_chat.runs.pump import Limits, Pump
from durable_chat.streams.client import Producer, StreamClient
from durable_chat.streams.protocol.errors import StaleEpoch, StreamError
from durable_chat.streams.protocol.offsets import START

log = logging.getLogger(__name__)

# One id for whoever writes a conversation: the epoch tells the writers apart, and fences the older ones.
PRODUCER_ID = "durable_chat"
OUTAGE_SECONDS = 300.0  # how long a run waits for a streams service that is away


class Execution:
    """A run on this process's background loop. `accepted` resolves when the send may be answered.

    Not `here`: that is all, and the answer is left to a worker, unless the run is to be stopped already.
    """

    def __init__(
        self,
        claim: Claim,
        prompt: Prompt,
        *,
        streams: StreamClient,
        provider: ModelProvider,
        here: bool = True,
    ) -> None:
        self.claim = claim
        self._here = here
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._prompt = prompt
        self._streams = streams
        self._provider = provider
        self._answer = Answer(thread_id=claim.conversation_id, run_id=claim.run_id)
        self._cut: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._lost = False

    def stop(self, end: End = ends.STOPPED) -> None:
        """End the answer here, keep what there is, and say so to the readers."""
        if not self._cut.done():
            self._cut.set_result(end)

    def lose(self) -> None:
        """The conversation is somebody else's now, or gone: end without a further write."""
        self._lost = True
        self.stop()

    async def run(self) -> None:
        """The whole life of the run. Raises nothing: what cannot be ended in order is left to recovery."""
        try:
            async with self._producer() as producer:
                if not self.claim.accepted:
                    await self._accept(producer)
                    await journal.began(self.claim)
                if self._here or self._cut.done():
                    await self._write(producer)
        except (Fenced, StaleEpoch):
            self._lost = True
            self._end_early(StreamError("The conversation was taken over."))
            await self._bury()
        except StreamError as error:
            log.warning("run %s cannot write its stream: %s", self.claim.run_id, type(error).__name__)
            await self._abandon(error)
        except Exception as error:
            log.exception("run %s broke", self.claim.run_id)
            await self._abandon(error)
        if self._lost:
            journal.note(self.claim, "lost", level=logging.WARNING)

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
        return Producer(
            self._streams,
            claim.stream_path,
            id=PRODUCER_ID,
            epoch=claim.epoch,
            give_up_after=OUTAGE_SECONDS,
        )

    async def _accept(self, producer: Producer) -> None:
        """Echo, then rows, then RUN_STARTED: from here on a terminal chunk will follow, whoever dies.

        RUN_STARTED is an append of its own: its offset is one that a reader can resume from.
        """
        offset = self.claim.offset
        if offset == START:  # usually there since the save, unless the service was away then
            offset = await sow(self._streams, self.claim.stream_path, self.claim.shown)
        if self.claim.opening:
            offset = await producer.append(self.claim.opening)
        await in_database(progress.accepted, self.claim, offset)
        await producer.append([self._answer.started()])
        self.accepted.set_result(None)

    async def _write(self, producer: Producer) -> None:
        end = await self._pumped(producer)
        if self._lost:
            return
        await in_database(progress.end, self.claim)
        journal.note(self.claim, "ending")
        terminal = self._terminal(end)
        ended = "" if end.state == Run.State.DONE else str(end.state)
        last = self._answer.close(end.text or ends.NO_RESULT, ended=ended)
        offset = await producer.append([*last, terminal])
        await in_database(
            progress.release,
            self.claim,
            end.state,
            offset,
            messages=self._answer.messages,
            notice=end.text,
            error=end.error,
            usage=self._answer.usage,
        )
        await journal.ended(self.claim, end.state)

    async def _pumped(self, producer: Producer) -> End:
        async with line.current().place(unless=self._cut):
            if self._cut.done():
                return self._cut.result()
            journal.note(self.claim, "running")
            pump = Pump(
                self._provider,
                self._prompt,
                answer=self._answer,
                producer=producer,
                limits=Limits.current(),
                cut=self._cut,
            )
            return await pump.run()

    def _terminal(self, end: End) -> Chunk:
        if end.state == Run.State.DONE:
            return self._answer.finished()
        claim = self.claim
        return run_error(
            end.text,
            thread_id=claim.conversation_id,
            run_id=claim.run_id,
            code=end.code,
            usage=self._answer.usage,
        )
