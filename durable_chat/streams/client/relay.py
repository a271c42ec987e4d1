"""A service's streams through one hub: however many read live here, the service is asked once."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from durable_chat.streams import live
from durable_chat.streams.client.answers import opened, tail
from durable_chat.streams.client.frames import SILENCE_SECONDS, frames, page
from durable_chat.streams.hub import Frame, Hub
from durable_chat.streams.protocol.errors import StreamError, to_response
from durable_chat.streams.protocol.exchange import Handler, Request, Response

# Longer than any live read here lasts: through trouble that is over sooner, readers stay where they are.
_PATIENCE_SECONDS: Final = 90.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """The streams of the service that ``handler`` leads to. Implements ``hub.Source``.

    ``follow`` holds one connection, and takes it up again by itself through trouble of up to ``patience``
    seconds; ``silence`` is how long a connection may say nothing.
    """

    handler: Handler
    silence: float = SILENCE_SECONDS
    patience: float = _PATIENCE_SECONDS

    async def read(self, path: str, offset: str) -> Frame:
        return await page(self.handler, path, offset)

    async def follow(self, path: str, frame: Frame) -> AsyncGenerator[Frame, None]:
        following = frames(self.handler, path, after=frame, silence=self.silence, give_up_after=self.patience)
        async with aclosing(following):
            async for each in following:
                if each.end > each.start or each.closed:
                    yield each


class Relay:
    """A ``Handler`` in front of another: live reads are answered here, all else is passed on.

    What comes down of a read is one whole page or an error, never the half of a page nor what somebody in
    between has to say: a page is read to its end before it is answered.
    """

    def __init__(
        self,
        source: Upstream,
        *,
        sse_seconds: float = live.SSE_SECONDS,
        long_poll_seconds: float = live.LONG_POLL_SECONDS,
    ) -> None:
        self.hub = Hub(source)
        self._handler = source.handler
        self._sse_seconds = sse_seconds
        self._long_poll_seconds = long_poll_seconds

    async def __call__(self, request: Request) -> Response:
        """Answer one request. Raises what the other handler raises for requests other than GET."""
        if request.method != "GET":
            return await self._handler(request)
        try:
            return await self._read(request)
        except StreamError as error:
            return to_response(error)

    async def _read(self, request: Request) -> Response:
        offset = request.query.get("offset")
        match request.query.get("live"):
            case "sse" if offset is not None:
                return await live.sse(self.hub, request, offset=offset, seconds=self._sse_seconds)
            case "long-poll" if offset is not None:
                return await live.long_poll(self.hub, request, offset=offset, seconds=self._long_poll_seconds)
        return await self._page(request)

    async def _page(self, request: Request) -> Response:
        async with await opened(self._handler, request) as response:
            body = await response.read()
        if response.status != 304:
            tail(response)
        return Response(response.status, response.headers, body)
