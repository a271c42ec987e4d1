"""The conversation over a WebSocket: catch-up, then live, each chunk with the id to resume after it."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs

import orjson
from channels.generic.websocket import AsyncWebsocketConsumer

from durable_chat import backends, conf
from durable_chat.authentication import Who, still
from durable_chat.connections import in_database
from durable_chat.exceptions import ChatError
from durable_chat.marks import inward, is_before_all
from durable_chat.models import Conversation
from durable_chat.runs import launch, loop
from durable_chat.runs.mending import mend
from durable_chat.streams.departure import departure
from durable_chat.streams.hub import Frame
from durable_chat.streams.protocol.errors import BadRequest, StreamError, StreamGone, StreamNotFound
from durable_chat.streams.protocol.offsets import NOW, START
from durable_chat.views.base import ID, authorise, refusal_of
from durable_chat.views.watch import Watch

log = logging.getLogger(__name__)

WHO: Final = "durable_chat.who"  # where a scope says who is there, if not by Channels' user and session
PING_SECONDS = 30.0
PING = orjson.dumps({"type": "ping"}).decode()

# HTTP's statuses in the range that is free for applications: Daphne can send no code below it but 1000.
CLOSE_BAD_INPUT = 4400
CLOSE_NOT_FOUND = 4404
CLOSE_TRY_AGAIN = 4503


class ConversationConsumer(AsyncWebsocketConsumer):
    """`ws/chat/<id>?offset=…`: text frames `{"id": "<offset before the batch>.<n>", "chunk": …}` and pings.

    `offset` is the last frame's id, or any offset of the stream; without it, from the beginning. A refusal is
    accepted first and then closed with 4404: a browser shows a refused handshake as 1006, which says nothing.
    """

    _tasks: tuple["asyncio.Task[None]", ...] = ()

    async def connect(self) -> None:
        await self.accept()
        who = self._who()
        watch = Watch(self._conversation_id(), who)
        try:
            conversation = await watch.admit(await who())
        except Exception as error:  # noqa: BLE001 - each is answered
            await self.close(_code(error))
            return
        # Tasks of their own: a handler that loops would keep `disconnect` from being called.
        relaying = asyncio.create_task(self._relay(conversation, self._offset()))
        attending = asyncio.create_task(self._attend(watch, relaying))
        self._tasks = (relaying, attending, asyncio.create_task(self._depart(relaying)))

    async def disconnect(self, code: int) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """`{"type": "abort", "runId"?}` stops the answer. Nothing else is expected: sending goes by HTTP."""
        frame = _object(text_data)
        run_id = frame.get("runId")
        if frame.get("type") == "abort" and (run_id is None or _is_id(run_id)):
            with suppress(ChatError):  # whoever may not stop it sees that it goes on
                conversation = await authorise(await self._who()(), self._conversation_id(), "stop")
                await loop.call(launch.stop, conversation.pk, run_id)

    async def _relay(self, conversation: Conversation, offset: str) -> None:
        try:
            async for frame in frames(conversation, offset):
                if not await self._told(frame):
                    return
        except (StreamNotFound, StreamGone):
            with suppress(StreamError):
                await loop.call(mend, conversation.pk)
            await self.close(CLOSE_TRY_AGAIN)
        except BadRequest:
            await self.close(CLOSE_BAD_INPUT)
        except StreamError as error:
            log.warning("WebSocket of %s ended: %s", conversation.pk, type(error).__name__)
            await self.close(CLOSE_TRY_AGAIN)
        except Exception as error:  # noqa: BLE001 - each is answered
            await self.close(_code(error))

    async def _attend(self, watch: Watch, relaying: "asyncio.Task[None]") -> None:
        """A proxy that sees nothing for a minute cuts the connection; and who may read can change."""
        try:
            while True:
                await asyncio.sleep(min(PING_SECONDS, conf.get().reauthorise_seconds))
                await watch.renew()
                if not await self._told(PING):
                    return
        except Exception as error:  # noqa: BLE001 - each is answered
            relaying.cancel()
            await self.close(_code(error))

    async def _told(self, text: str) -> bool:
        """Whether the other side is still there; if not, `disconnect` is about to be called."""
        try:
            await self.send(text_data=text)
        except OSError:
            return False
        return True

    async def _depart(self, relaying: "asyncio.Task[None]") -> None:
        await departure.comes()
        relaying.cancel()
        await self.close(CLOSE_TRY_AGAIN)

    def _who(self) -> Who:
        """What `mount` has found, or else a host's own routing."""
        user, session = self.scope.get("user"), self.scope.get("session")
        found: Any = self.scope.get(WHO)
        return found or partial(in_database, still, user, session)

    def _conversation_id(self) -> str:
        conversation_id: str = self.scope["url_route"]["kwargs"]["conversation_id"]
        return conversation_id

    def _offset(self) -> str:
        query = parse_qs(self.scope["query_string"].decode())
        return query.get("offset", [START])[-1]


def _code(error: Exception) -> int:
    """What a socket is closed with because of what was raised behind it."""
    return CLOSE_TRY_AGAIN if refusal_of(error).status >= 500 else CLOSE_NOT_FOUND


async def frames(conversation: Conversation, resume: str) -> AsyncIterator[str]:
    """The frames after `resume`. Raises BadRequest for an id or offset that was never issued.

    The chunks of one append share an offset, so an id counts on from the offset before them; the count does
    not depend on how a later read cuts the same chunks into batches.
    """
    had, skip = _parsed(resume)
    mark, offset = conversation.mark, inward(conversation.mark, had)
    if offset != had.removeprefix(mark):
        skip = 0  # in a stream that was lost
    if not skip and is_before_all(offset):
        offset = START  # which every service knows
    async with aclosing(backends.get_hub().follow(conversation.stream_path, offset)) as batches:
        async for batch in batches:
            if batch.up_to_date and batch.end < conversation.offset:
                raise StreamNotFound
            texts = batch.once(_texts)
            for text in texts[skip:]:
                yield text.replace(_ID, _ID + mark, 1) if mark else text
            skip = max(0, skip - len(texts))
            if skip and batch.up_to_date:
                raise BadRequest(f"{resume!r} is not the id of a chunk: it lies behind the last one.")


_ID: Final = '{"id":"'  # what a frame begins with
_NUMBER: Final = re.compile("[0-9]{1,16}")


def _texts(batch: Frame) -> list[str]:
    return [
        orjson.dumps({"id": f"{batch.start}.{number}", "chunk": chunk}).decode()
        for number, chunk in enumerate(batch.messages)
    ]


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and ID.fullmatch(value) is not None


def _object(text: str | None) -> dict[str, Any]:
    """The frame of a client, or an empty one for what is no JSON object."""
    try:
        frame = orjson.loads(text or b"")
    except orjson.JSONDecodeError:
        return {}
    return frame if isinstance(frame, dict) else {}


def _parsed(resume: str) -> tuple[str, int]:
    """`<offset>.<n>` into the offset and how many chunks behind it the reader has."""
    if resume in ("", START, NOW):
        return resume or START, 0
    offset, dot, number = resume.rpartition(".")
    if not dot:
        return resume, 0
    if not _NUMBER.fullmatch(number) or offset in ("", NOW):
        raise BadRequest(f"{resume!r} is not the id of a chunk.")
    return offset, int(number) + 1
