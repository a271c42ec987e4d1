"""The order of checks: what an append meets first, second and last."""

import pytest

from durable_chat.streams.protocol.errors import (
    ContentTypeMismatch,
    InvalidEpochStart,
    ProducerGap,
    SequenceRegression,
    StaleEpoch,
    StreamClosed,
    StreamError,
    StreamExists,
)
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.producers import ProducerStamp, ProducerState
from durable_chat.streams.stores import rules
from durable_chat.streams.stores.base import Append, Batch, NewStream, Stream

OPEN = Stream(
    tag="t", content_type="text/plain", expiry=Expiry(), tail=4, closed=False, closed_by=None,
    last_seq="b", touched=0.0,
)  # fmt: skip
CLOSER = ProducerStamp("p", 1, 3)
CLOSED = OPEN._replace(closed=True)
CLOSED_BY_P = CLOSED._replace(closed_by=CLOSER)
KNOWN = ProducerState(1, 3)
WORD = Append(Batch(b"word", 4), content_type="text/plain")
NOTHING = Append(close=True)


def by(epoch: int, seq: int, append: Append = WORD) -> Append:
    return append._replace(producer=ProducerStamp("p", epoch, seq))


@pytest.mark.parametrize(
    ("stream", "append", "verdict"),
    [
        (OPEN, WORD, True),
        (OPEN, WORD._replace(close=True), True),
        (OPEN, NOTHING, True),
        (OPEN, WORD._replace(content_type="TEXT/plain; charset=x"), True),
        (OPEN, WORD._replace(content_type="application/json"), ContentTypeMismatch),
        (OPEN, NOTHING._replace(content_type="application/json"), True),
        (OPEN, WORD._replace(stream_seq="c"), True),
        (OPEN, WORD._replace(stream_seq="b"), SequenceRegression),
        (OPEN, WORD._replace(stream_seq="B"), SequenceRegression),
        (OPEN, WORD._replace(stream_seq="a10"), SequenceRegression),
        (OPEN._replace(last_seq=None), WORD._replace(stream_seq=""), True),
        (OPEN, by(1, 4), True),
        (OPEN, by(1, 3), False),
        (OPEN, by(1, 5), ProducerGap),
        (OPEN, by(0, 4), StaleEpoch),
        (OPEN, by(2, 1), InvalidEpochStart),
        (OPEN, by(2, 0, NOTHING), True),
        # The content type is looked at before the producer, a repeat before Stream-Seq.
        (OPEN, by(0, 0, WORD._replace(content_type="a/b")), ContentTypeMismatch),
        (OPEN, by(1, 3, WORD._replace(stream_seq="a")), False),
        (OPEN, by(0, 0, WORD._replace(stream_seq="a")), StaleEpoch),
        (OPEN, by(1, 4, WORD._replace(stream_seq="a")), SequenceRegression),
        # Closed comes first of all, but for the request that closed it, and for closing once more.
        (CLOSED, WORD, StreamClosed),
        (CLOSED, WORD._replace(content_type="a/b", stream_seq="a"), StreamClosed),
        (CLOSED, WORD._replace(close=True), StreamClosed),
        (CLOSED, NOTHING, False),
        (CLOSED, by(1, 3), StreamClosed),
        (CLOSED, by(1, 3, NOTHING), StreamClosed),
        (CLOSED_BY_P, by(1, 3), False),
        (CLOSED_BY_P, by(1, 3, WORD._replace(close=True, content_type="a/b")), False),
        (CLOSED_BY_P, by(1, 3, NOTHING), False),
        (CLOSED_BY_P, by(1, 4), StreamClosed),
        (CLOSED_BY_P, by(0, 9), StreamClosed),
        (CLOSED_BY_P, NOTHING, False),
    ],
)
def test_append(stream: Stream, append: Append, verdict: bool | type[StreamError]) -> None:
    known = KNOWN if append.producer else None
    if isinstance(verdict, bool):
        assert rules.check_append(stream, append, known) is verdict
    else:
        with pytest.raises(verdict) as refusal:
            rules.check_append(stream, append, known)
        assert type(refusal.value) is verdict


def test_a_closed_stream_says_where_it_ends() -> None:
    with pytest.raises(StreamClosed) as refusal:
        rules.check_append(CLOSED, WORD, None)
    assert refusal.value.headers == {"stream-closed": "true", "stream-next-offset": "0000000000000004"}


@pytest.mark.parametrize(
    ("new", "same"),
    [
        (NewStream("text/plain"), True),
        (NewStream("Text/Plain; charset=utf-8"), True),
        (NewStream("text/plain", batch=Batch(b"other", 5)), True),
        (NewStream("text/html"), False),
        (NewStream("text/plain", Expiry(ttl=1)), False),
        (NewStream("text/plain", Expiry(expires_at="2030-01-01T00:00:00Z")), False),
        (NewStream("text/plain", closed=True), False),
    ],
)
def test_create_where_there_is_one(new: NewStream, same: bool) -> None:
    if same:
        rules.check_create(OPEN, new)
    else:
        with pytest.raises(StreamExists):
            rules.check_create(OPEN, new)


def test_what_an_append_leaves() -> None:
    append = by(1, 4)._replace(close=True, stream_seq="c")
    after = rules.apply_append(OPEN, append, now=9.0)
    assert (after.tail, after.closed, after.closed_by) == (8, True, append.producer)
    assert (after.last_seq, after.touched, after.tag) == ("c", 9.0, "t")
    assert rules.producer_after(append, KNOWN) == ProducerState(1, 4)
    assert rules.producer_after(WORD, KNOWN) is KNOWN


def test_a_new_stream_is_told_from_its_predecessor() -> None:
    new = NewStream("text/plain", batch=Batch(b"abc", 3), closed=True)
    one, other = rules.create(new, now=1.0), rules.create(new, now=1.0)
    assert one.tag != other.tag
    assert (one.tail, one.closed, one.closed_by, one.touched) == (3, True, None, 1.0)
