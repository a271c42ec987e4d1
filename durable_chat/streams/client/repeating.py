"""Asking again for what may be asked twice."""

from durable_chat.streams.client.backoff import Backoff
from durable_chat.streams.protocol.errors import Unavailable, from_response
from durable_chat.streams.protocol.exchange import Handler, Request, Response

_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})


class Repeating:
    """A Handler before ``handler`` that waits out what passes within ``seconds``, as told by Retry-After.

    Only for methods that do the same when done twice. Appends go through once: their Producer repeats them,
    for longer, under a stamp that makes it safe.
    """

    def __init__(self, handler: Handler, *, seconds: float = 3.0) -> None:
        self._handler = handler
        self._seconds = seconds

    async def __call__(self, request: Request) -> Response:
        """The answer. Raises Unavailable, with the service's own Retry-After, when it did not pass."""
        if request.method not in _IDEMPOTENT:
            return await self._handler(request)
        backoff = Backoff(self._seconds)
        while True:
            try:
                return await self._once(request)
            except Unavailable as error:
                await backoff.pause(error)

    async def _once(self, request: Request) -> Response:
        response = await self._handler(request)
        if response.status >= 400 and isinstance(
            error := from_response(response.status, response.headers), Unavailable
        ):
            await response.aclose()
            raise error
        return response
