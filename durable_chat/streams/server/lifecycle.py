"""Create, describe, delete (sections 5.1, 5.4, 5.5)."""

import re
from contextlib import suppress
from typing import Final
from urllib.parse import quote

from durable_chat.streams.protocol import expiry, forks
from durable_chat.streams.protocol.errors import BadRequest, StreamGone
from durable_chat.streams.protocol.exchange import Request, Response
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.protocol.headers import (
    DEFAULT_CONTENT_TYPE,
    STREAM_CLOSED,
    STREAM_NEXT_OFFSET,
    asks_to_close,
)
from durable_chat.streams.protocol.offsets import encode
from durable_chat.streams.server.append import batch_of
from durable_chat.streams.stores.base import NewStream, Stream, StreamStore

_CONTENT_TYPE: Final = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+\s*(;[\x20-\x7e]*)?", re.ASCII)


async def create(store: StreamStore, request: Request) -> Response:
    """201 with ``Location``, relative to the server's root, or 200 if it is there with this configuration."""
    fork = forks.parse(request.headers)
    content_type = await _content_type(store, request, fork)
    created = await store.create(
        request.path,
        NewStream(
            content_type,
            expiry.parse(request.headers),
            batch_of(content_type, request.body),
            closed=asks_to_close(request.headers),
            fork=fork,
        ),
    )
    headers = describe(created.stream)
    if not created.new:
        return Response(200, headers)
    return Response(201, {**headers, "location": quote(request.path)})


async def _content_type(store: StreamStore, request: Request, fork: Fork | None) -> str:
    content_type = request.headers.get("content-type")
    if content_type:
        if _CONTENT_TYPE.fullmatch(content_type) is None:
            raise BadRequest("The content type is malformed.")
        return content_type
    if fork is None:
        return DEFAULT_CONTENT_TYPE
    if request.body:  # which is to be read as what its source holds
        with suppress(StreamGone):  # no new fork of that; one that is there may be asked for once more
            return (await store.head(fork.source)).content_type
    return ""


async def head(store: StreamStore, request: Request) -> Response:
    """The stream's state, which counts as no use of it."""
    return Response(200, describe(await store.head(request.path)))


async def delete(store: StreamStore, request: Request) -> Response:
    """204, and the bytes are gone, or will be with the last fork that refers to them."""
    await store.delete(request.path)
    return Response(204)


def describe(stream: Stream) -> dict[str, str]:
    """The headers that say what a stream is."""
    return {
        "content-type": stream.content_type,
        "cache-control": "no-store",
        STREAM_NEXT_OFFSET: encode(stream.tail),
        **({STREAM_CLOSED: "true"} if stream.closed else {}),
        **expiry.describe(stream.expiry),
    }
