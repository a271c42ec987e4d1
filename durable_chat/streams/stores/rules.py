"""The order of checks: what a stream's state allows, and what becomes of it. Pure; shared by all stores."""

import secrets
from dataclasses import replace

from durable_chat.streams.protocol import producers
from durable_chat.streams.protocol.errors import (
    ContentTypeMismatch,
    SequenceRegression,
    StreamClosed,
    StreamExists,
)
from durable_chat.streams.protocol.headers import STREAM_CLOSED, STREAM_NEXT_OFFSET, media_type
from durable_chat.streams.protocol.offsets import encode
from durable_chat.streams.protocol.producers import ProducerState
from durable_chat.streams.stores.base import Append, NewStream, Stream


def create(new: NewStream, *, now: float) -> Stream:
    """The state of a stream that has just been created."""
    return Stream(
        tag=secrets.token_hex(8),
        content_type=new.content_type,
        expiry=new.expiry,
        tail=new.batch.length,
        closed=new.closed,
        closed_by=None,
        last_seq=None,
        touched=now,
    )


def check_create(stream: Stream, new: NewStream) -> None:
    """Raise ``StreamExists`` unless the stream is as ``new`` asks for; content is not compared (5.1)."""
    same = (
        media_type(stream.content_type) == media_type(new.content_type)
        and stream.expiry.same_as(new.expiry)
        and stream.closed == new.closed
    )
    if not same:
        raise StreamExists


def check_append(stream: Stream, append: Append, producer: ProducerState | None) -> bool:
    """Whether to carry ``append`` out (``True``), or it has been already (``False``).

    ``producer`` is what the stream remembers of the one that sends it. In this order, which section 5.2 sets
    and 5.2.1 completes, it raises: ``StreamClosed``; ``ContentTypeMismatch``; ``StaleEpoch``,
    ``InvalidEpochStart`` or ``ProducerGap``; ``SequenceRegression``.
    """
    if stream.closed:
        return _check_closed(stream, append)
    if append.batch.length and media_type(append.content_type) != media_type(stream.content_type):
        raise ContentTypeMismatch
    if append.producer is not None and not producers.is_new(producer, append.producer):
        return False
    if append.stream_seq is not None and stream.last_seq is not None and append.stream_seq <= stream.last_seq:
        raise SequenceRegression
    return True


def _check_closed(stream: Stream, append: Append) -> bool:
    stamp = append.producer
    if stamp is None and not append.batch.length:
        return False  # to close what is closed changes nothing (section 5.3)
    if stamp is not None and stamp == stream.closed_by:
        return False
    raise StreamClosed(headers={STREAM_CLOSED: "true", STREAM_NEXT_OFFSET: encode(stream.tail)})


def apply_append(stream: Stream, append: Append, *, now: float) -> Stream:
    """The state after an append that ``check_append`` let through."""
    return replace(
        stream,
        tail=stream.tail + append.batch.length,
        closed=append.close,
        closed_by=append.producer if append.close else None,
        last_seq=stream.last_seq if append.stream_seq is None else append.stream_seq,
        touched=now,
    )


def is_over(stream: Stream, *, now: float) -> bool:
    """Whether the stream has expired, and is as good as deleted."""
    return stream.expiry.is_over(touched=stream.touched, now=now)


def touch_due(stream: Stream, *, now: float) -> bool:
    """Whether a read at ``now`` is to be noted, so that the stream lives on."""
    return stream.expiry.touch_due(touched=stream.touched, now=now)


def producer_after(append: Append, producer: ProducerState | None) -> ProducerState | None:
    """What the stream remembers of the producer once ``append`` has been carried out."""
    stamp = append.producer
    return producer if stamp is None else ProducerState(stamp.epoch, stamp.seq)
