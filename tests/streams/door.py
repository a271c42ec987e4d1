"""What the contracts of the server's doors share: a door, and what is said at it."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson

from durable_chat.streams.protocol.exchange import Handler, Request, Response
from tests.streams.test_protocol import sse_events

JSON = {"content-type": "application/json"}
TEXT = {"content-type": "text/plain"}
BINARY = {"content-type": "application/octet-stream"}
CLOSE = {"stream-closed": "true"}
SOON = 30.0

# How the servers under test are set up: small, so that a page ends and time runs out within a test.
OPTIONS: Mapping[str, Any] = {
    "long_poll_seconds": 0.3,
    "page_bytes": 64,
    "max_body": 10_000,
}


def producer(epoch: int, seq: int, name: str = "p") -> dict[str, str]:
    return {"producer-id": name, "producer-epoch": str(epoch), "producer-seq": str(seq)}


class Door:
    """A server as its users see it: whole answers, or the events of a live one."""

    def __init__(self, handler: Handler, path: str) -> None:
        self.handler = handler
        self.path = path

    async def __call__(
        self, method: str, body: bytes = b"", headers: Mapping[str, str] | None = None, **query: str
    ) -> Response:
        """The answer with its body read."""
        response = await self.open(method, body, headers, **query)
        async with response:
            return Response(response.status, response.headers, await response.read())

    async def open(
        self, method: str, body: bytes = b"", headers: Mapping[str, str] | None = None, **query: str
    ) -> Response:
        return await self.handler(Request(method, self.path, query, headers or {}, body))

    async def events(
        self, headers: Mapping[str, str] | None = None, **query: str
    ) -> AsyncIterator[tuple[str, str]]:
        """The events of a live read as they come; give it up to leave."""
        async with await self.open("GET", b"", headers, live="sse", **query) as response:
            assert response.status == 200
            assert not isinstance(response.body, bytes)
            rest = b""
            async for piece in response.body:
                *blocks, rest = (rest + piece).split(b"\n\n")
                for block in blocks:
                    for event in sse_events(block):
                        yield event


def control(event: tuple[str, str]) -> dict[str, Any]:
    assert event[0] == "control"
    fields: dict[str, Any] = orjson.loads(event[1])
    return fields


def sentence(response: Response) -> str:
    """Errors are a sentence in JSON, and are not to be kept."""
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert isinstance(response.body, bytes)
    error: str = orjson.loads(response.body)["error"]
    assert error.endswith(".")
    return error
