"""Append and close (sections 5.2 and 5.3)."""

from durable_chat.streams.protocol import json_mode, producers
from durable_chat.streams.protocol.errors import BadRequest
from durable_chat.streams.protocol.exchange import Request, Response
from durable_chat.streams.protocol.headers import (
    LONGEST_NAME,
    PRODUCER_EPOCH,
    PRODUCER_SEQ,
    STREAM_CLOSED,
    STREAM_NEXT_OFFSET,
    STREAM_SEQ,
    asks_to_close,
    is_json,
)
from durable_chat.streams.protocol.offsets import encode
from durable_chat.streams.stores.base import Append, Appended, Batch, StreamStore


async def append(store: StreamStore, request: Request) -> Response:
    """200 for a producer's new batch; 204 for one without a producer, a repeated one, or a mere close."""
    close = asks_to_close(request.headers)
    producer = producers.parse(request.headers)
    stream_seq = request.headers.get(STREAM_SEQ)
    if stream_seq is not None and len(stream_seq) > LONGEST_NAME:
        raise BadRequest(f"Stream-Seq has at most {LONGEST_NAME} characters.")
    if not request.body and not close:
        raise BadRequest("There is nothing to append.")
    batch = await _batch(store, request)
    appended = await store.append(
        request.path,
        Append(
            batch,
            content_type=request.headers.get("content-type", ""),
            close=close,
            producer=producer,
            stream_seq=stream_seq if batch.length else None,
        ),
    )
    accepted = appended.new and producer is not None and batch.length > 0
    return Response(200 if accepted else 204, _headers(appended))


def batch_of(content_type: str, body: bytes) -> Batch:
    """A body as the stream keeps it. Raises ``BadRequest`` when the type is JSON and the body is not."""
    if not body or not is_json(content_type):
        return Batch(body, len(body))
    return Batch(*json_mode.messages_of(body))


async def _batch(store: StreamStore, request: Request) -> Batch:
    try:
        return _batch_of(request)
    except BadRequest:
        await store.head(request.path)  # to say first, if so, that there is no such stream
        raise


def _batch_of(request: Request) -> Batch:
    if not request.body:
        return Batch()
    content_type = request.headers.get("content-type")
    if not content_type:
        raise BadRequest("Content-Type is missing.")
    batch = batch_of(content_type, request.body)
    if not batch.length:
        raise BadRequest("An empty array appends nothing.")
    return batch


def _headers(appended: Appended) -> dict[str, str]:
    headers = {"cache-control": "no-store", STREAM_NEXT_OFFSET: encode(appended.stream.tail)}
    if appended.stream.closed:
        headers[STREAM_CLOSED] = "true"
    if appended.producer is not None:
        headers[PRODUCER_EPOCH] = str(appended.producer.epoch)
        headers[PRODUCER_SEQ] = str(appended.producer.seq)
    return headers
