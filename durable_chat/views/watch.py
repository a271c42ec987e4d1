"""A live connection's right to go on: authorised when it opens, and again while it lasts."""

import time
from collections.abc import AsyncIterator

from durable_chat import conf
from durable_chat.authentication import Who
from durable_chat.connections import in_database
from durable_chat.exceptions import Unavailable
from durable_chat.models import Conversation, Visitor
from durable_chat.runs import loop
from durable_chat.runs.mending import mend
from durable_chat.streams.protocol.exchange import Body, Response
from durable_chat.views.base import authorise, refusal_of


class Watch:
    """Over one visitor's reading of one conversation. `who` finds out anew who the visitor is.

    It has no task and no timer of its own: it looks when there is something to pass on, which in a live read
    is at least every keep-alive, and nothing is passed on before it has looked.
    """

    def __init__(self, conversation_id: str, who: Who) -> None:
        self._conversation_id = conversation_id
        self._who = who
        self._due = 0.0
        self._path = ""

    async def admit(self, visitor: Visitor) -> Conversation:
        """The conversation that this visitor may read. Raises NotFound."""
        asked_at = time.monotonic()
        conversation = await authorise(visitor, self._conversation_id, "read")
        self._path = self._path or conversation.stream_path
        self._due = asked_at + conf.get().reauthorise_seconds
        return conversation

    async def renew(self) -> None:
        """Ask again, if that is due. Raises NotFound when the answer has turned to no.

        Raises Unavailable when the conversation has another stream by now: whoever reads has to come again.
        """
        if time.monotonic() >= self._due:
            conversation = await self.admit(await self._who())
            if conversation.stream_path != self._path:
                raise Unavailable("The conversation has another stream: read on.")

    async def mended(self) -> Conversation:
        """The conversation with a stream, should it have lost its own. Raises StreamError."""
        await loop.call(mend, self._conversation_id)
        conversation: Conversation = await in_database(Conversation.objects.get, pk=self._conversation_id)
        self._path = conversation.stream_path
        return conversation

    async def over(self, response: Response) -> Response:
        """The response, which ends when the visitor may no longer read it. Raises NotFound, Unavailable.

        A long poll has waited before its first byte.
        """
        if not isinstance(response.body, bytes):
            return response._replace(body=_Watched(response.body, self))
        await self.renew()
        return response


class _Watched:
    """A body that ends early."""

    def __init__(self, body: Body, watch: Watch) -> None:
        self._body = body
        self._watch = watch

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._body:
            try:
                await self._watch.renew()
            except Exception as error:  # noqa: BLE001 - whoever reads asks again, and is told
                refusal_of(error)
                return
            yield piece

    async def aclose(self) -> None:
        await self._body.aclose()
