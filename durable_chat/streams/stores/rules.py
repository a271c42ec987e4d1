"""The order of checks: what a stream's state allows, and what becomes of it. Pure; shared by all stores."""

import secrets
from collections.abc import Iterable
from dataclasses import replace

from durable_chat.streams.protocol import forks, producers
from durable_chat.streams.protocol.errors import (
    ContentTypeMismatch,
    InvalidOffset,
    SequenceRegression,
    SourceGone,
    StreamClosed,
    StreamExists,
    StreamGone,
    StreamNotFound,
)
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.protocol.headers import STREAM_CLOSED, STREAM_NEXT_OFFSET, media_type
from durable_chat.streams.protocol.offsets import encode
from durable_chat.streams.protocol.producers import ProducerState
from durable_chat.streams.stores.base import Append, Batch, NewStream, Page, Stream


def create(new: NewStream, *, now: float) -> Stream:
    """The state of a stream that has just been created; of a fork, from what ``fork`` made of the request."""
    stream = Stream(
        tag=secrets.token_hex(8),
        content_type=new.content_type,
        expiry=new.expiry,
        tail=0,
        closed=new.closed,
        closed_by=None,
        last_seq=None,
        touched=now,
        fork=new.fork,
    )
    return stream._replace(tail=stream.start + new.batch.length)


def check_create(stream: Stream, new: NewStream, *, source: Stream | None = None) -> None:
    """Raise ``StreamExists`` unless the stream is as ``new`` asks for; content is not compared (5.1).

    ``source`` is what is kept where ``new.fork`` points to, deleted or not.
    """
    asked = new if source is None else _inherit(new, source)
    same = (
        not stream.deleted
        and (stream.fork is None if new.fork is None else new.fork.asks_for(stream.fork))
        and media_type(stream.content_type) == media_type(asked.content_type)
        and stream.expiry.same_as(asked.expiry)
        and stream.closed == asked.closed
    )
    if not same:
        raise StreamExists


def check_fork(new: NewStream, fork: Fork, source: Stream) -> int:
    """The position after which ``fork`` leaves its source, which is what is kept at that path.

    In this order it raises (section 4.2): ``SourceGone``; ``ContentTypeMismatch``; ``InvalidOffset``.
    """
    if source.deleted:
        raise SourceGone
    if new.content_type and media_type(new.content_type) != media_type(source.content_type):
        raise ContentTypeMismatch
    position = source.tail if fork.position is None else fork.position
    if position > source.tail:
        raise InvalidOffset("Stream-Fork-Offset is beyond the end of the stream to fork.")
    return position


def fork(new: NewStream, fork: Fork, following: Page) -> NewStream:
    """The request with all that it takes from its source.

    ``following`` is the one batch of the source that follows the position of ``check_fork``, or none. What
    the fork takes of it is its own, in its first batch, so that a batch is always read whole. Raises
    ``BadRequest`` when the sub-offset asks for more.
    """
    source, length = following.stream, following.end - following.start
    part = forks.part(source.content_type, following.data, length=length, sub_offset=fork.sub_offset)
    return _inherit(new, source)._replace(
        batch=_joined(source.joint, Batch(part, fork.sub_offset), new.batch),
        fork=replace(fork, position=following.start),
    )


def _inherit(new: NewStream, source: Stream) -> NewStream:
    return new._replace(
        content_type=new.content_type or source.content_type,
        expiry=forks.inherit(new.expiry, source.expiry),
    )


def _joined(joint: bytes, *batches: Batch) -> Batch:
    pieces = [batch.data for batch in batches if batch.length]
    return Batch(joint.join(pieces), sum(batch.length for batch in batches))


def page(stream: Stream, start: int, following: Iterable[tuple[int, int, bytes]], *, limit: int) -> Page:
    """The batches (from, to, data) that follow ``start``, taken until they make ``limit`` bytes.

    Raises ``InvalidOffset`` for a position at which no batch ends.
    """
    ends: list[int] = []
    pieces: list[bytes] = []
    size, end = 0, start
    for begin, finish, data in following:
        if begin != end:
            raise InvalidOffset
        ends.append(finish)
        pieces.append(data)
        size, end = size + len(data), finish
        if size >= limit:
            break
    if not pieces and start != stream.tail:
        raise InvalidOffset
    return Page(stream, start, ends, pieces)


def forked(source: Stream) -> Stream:
    """The source once it has one fork more."""
    return source._replace(forks=source.forks + 1)


def released(source: Stream) -> Stream:
    """The source once it has one fork less; ``is_left`` says whether it is to be erased too."""
    return source._replace(forks=source.forks - 1)


def check_there(stream: Stream, *, now: float) -> None:
    """Raise ``StreamGone`` for what is kept only for its forks, ``StreamNotFound`` for what has expired."""
    if stream.deleted:
        raise StreamGone
    if is_over(stream, now=now):
        raise StreamGone if stream.forks else StreamNotFound


def is_left(stream: Stream) -> bool:
    """Whether a stream has been deleted and its last fork has ended."""
    return stream.deleted and not stream.forks


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
    return stream._replace(
        tail=stream.tail + append.batch.length,
        closed=append.close,
        closed_by=append.producer if append.close else None,
        last_seq=stream.last_seq if append.stream_seq is None else append.stream_seq,
        touched=now,
    )


def is_over(stream: Stream, *, now: float) -> bool:
    """Whether the stream has expired, and is to be deleted."""
    return not stream.deleted and stream.expiry.is_over(touched=stream.touched, now=now)


def touch_due(stream: Stream, *, now: float) -> bool:
    """Whether a read at ``now`` is to be noted, so that the stream lives on."""
    return stream.expiry.touch_due(touched=stream.touched, now=now)


def producer_after(append: Append, producer: ProducerState | None) -> ProducerState | None:
    """What the stream remembers of the producer once ``append`` has been carried out."""
    stamp = append.producer
    return producer if stamp is None else ProducerState(stamp.epoch, stamp.seq)
