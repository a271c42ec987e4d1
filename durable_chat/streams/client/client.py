"""The protocol's operations, one request each: no retries, no state."""

from collections.abc import Sequence
from typing import Any

import orjson

from durable_chat.streams.client.answers import is_closed, opened, tail
from durable_chat.streams.client.frames import page
from durable_chat.streams.client.values import Appended, Batch, Head, Stamp
from durable_chat.streams.protocol.errors import Conflict, StreamExists, StreamGone, StreamNotFound
from durable_chat.streams.protocol.exchange import Handler, Request, Response
from durable_chat.streams.protocol.offsets import START

_JSON = "application/json"
_CLOSED = {"stream-closed": "true"}


class StreamClient:
    """Speaks to whatever ``handler`` leads to: a server in this process, or one behind HTTP.

    Every method raises the StreamError that the answer stands for; Unavailable means that the same request
    may be sent again, which for an append is safe only with a Stamp.
    """

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    async def create(
        self, path: str, *, content_type: str = _JSON, closed: bool = False, body: bytes = b""
    ) -> str:
        """Create the stream, or find it with the same configuration (section 5.1); its tail.

        Raises StreamExists for one with another configuration.
        """
        headers = {"content-type": content_type, **(_CLOSED if closed else {})}
        try:
            response = await self._ask(Request("PUT", path, headers=headers, body=body))
        except Conflict as error:
            raise StreamExists(headers=error.headers) from None
        return tail(response)

    async def append(
        self, path: str, items: Sequence[Any], *, producer: Stamp | None = None, close: bool = False
    ) -> Appended:
        """Append ``items`` as one batch of JSON messages (section 5.2), and ``close`` the stream with them.

        Raises StaleEpoch, ProducerGap, StreamClosed and the other conflicts of section 5.2.
        """
        headers = {
            "content-type": _JSON,
            **(producer.headers if producer else {}),
            **(_CLOSED if close else {}),
        }
        body = orjson.dumps(list(items)) if items else b""
        response = await self._ask(Request("POST", path, headers=headers, body=body))
        if producer and items and response.status == 204:
            return Appended(response.headers.get("stream-next-offset"), duplicate=True)
        return Appended(tail(response), duplicate=False)

    async def close(self, path: str) -> str:
        """Close the stream, or find it closed (section 5.3); its last offset."""
        return tail(await self._ask(Request("POST", path, headers=_CLOSED)))

    async def delete(self, path: str) -> None:
        """Delete the stream (section 5.4); one that is not there is deleted."""
        try:
            await self._ask(Request("DELETE", path))
        except (StreamNotFound, StreamGone):
            return

    async def head(self, path: str) -> Head:
        """The stream's tail and state (section 5.5)."""
        response = await self._ask(Request("HEAD", path))
        return Head(tail(response), is_closed(response), response.headers.get("content-type", ""))

    async def read(self, path: str, *, offset: str = START) -> Batch:
        """One page of a JSON stream from ``offset`` on (section 5.6)."""
        return Batch.of(await page(self.handler, path, offset), after=offset)

    async def open(self, request: Request) -> Response:
        """The answer to ``request``, for the caller to close; raises what one other than 2xx stands for."""
        return await opened(self.handler, request)

    async def _ask(self, request: Request) -> Response:
        response = await self.open(request)
        await response.aclose()
        return response
