"""The pure rules of forks: what a PUT asks for, what is inherited, what is cut, where it is read."""

import itertools
from collections.abc import Iterator, Mapping

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_chat.streams.protocol import forks, json_mode
from durable_chat.streams.protocol.errors import (
    BadRequest,
    ContentTypeMismatch,
    InvalidOffset,
    SourceGone,
    StreamError,
    StreamExists,
    StreamGone,
    StreamNotFound,
)
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.stores import rules
from durable_chat.streams.stores.base import Batch, NewStream, Page, Stream

NEVER = Expiry()
LONG, SHORT = Expiry(ttl=3600), Expiry(ttl=1)
LATE, SOON = Expiry(expires_at="2999-01-01T00:00:00Z"), Expiry(expires_at="2030-01-01T00:00:00Z")


def source(**fields: object) -> Stream:
    return Stream("t", "text/plain", NEVER, 10, False, None, None, 0.0, **fields)  # type: ignore[arg-type]


class TestHeaders:
    @pytest.mark.parametrize(
        ("headers", "fork"),
        [
            ({}, None),
            ({"stream-forked-from": "a"}, Fork("a", None)),
            ({"stream-forked-from": "a/ä b"}, Fork("a/ä b", None)),
            ({"stream-forked-from": "a", "stream-fork-offset": "0000000000000007"}, Fork("a", 7)),
            ({"stream-forked-from": "a", "stream-fork-offset": "-1"}, Fork("a", 0)),
            ({"stream-forked-from": "a", "stream-fork-offset": "now"}, Fork("a", None)),
            ({"stream-forked-from": "a", "stream-fork-offset": "0" * 16 + "_" + "0" * 16}, Fork("a", 0)),
            ({"stream-forked-from": "a", "stream-fork-sub-offset": "0"}, Fork("a", None)),
            ({"stream-forked-from": "a", "stream-fork-sub-offset": "12"}, Fork("a", None, 12)),
        ],
    )
    def test_well_formed(self, headers: Mapping[str, str], fork: Fork | None) -> None:
        assert forks.parse(headers) == fork

    @pytest.mark.parametrize(
        "headers",
        [
            {"stream-fork-offset": "0000000000000007"},
            {"stream-fork-sub-offset": "0"},
            *(
                {"stream-forked-from": "a", "stream-fork-offset": offset}
                for offset in ("", "7", "-2", "9" * 16 + "_" + "9" * 16, "0" * 15 + "\u0660")
            ),
            *(
                {"stream-forked-from": "a", "stream-fork-sub-offset": sub_offset}
                for sub_offset in ("", "-1", "+1", "05", "1.5", "abc", "\u0661", "1" * 99)
            ),
        ],
    )
    def test_malformed(self, headers: Mapping[str, str]) -> None:
        with pytest.raises(BadRequest):
            forks.parse(headers)

    @pytest.mark.parametrize(
        ("asked", "kept", "same"),
        [
            (Fork("a", 3, 1), Fork("a", 3, 1), True),
            (Fork("a", None, 1), Fork("a", 3, 1), True),
            (Fork("a", 3), Fork("a", 3, 1), False),
            (Fork("a", 2, 1), Fork("a", 3, 1), False),
            (Fork("b", 3, 1), Fork("a", 3, 1), False),
            (Fork("a", 0), None, False),
        ],
    )
    def test_asking_again(self, asked: Fork, kept: Fork | None, same: bool) -> None:
        assert asked.asks_for(kept) is same


@pytest.mark.parametrize(
    ("source", "asked", "given"),
    [
        (NEVER, NEVER, NEVER),
        (NEVER, SHORT, SHORT),
        (NEVER, SOON, SOON),
        (LONG, NEVER, LONG),
        (LONG, SHORT, SHORT),
        (SHORT, LONG, LONG),
        (LONG, SOON, SOON),
        (SOON, NEVER, SOON),
        (SOON, LONG, LONG),
        (SOON, LATE, LATE),
    ],
)
def test_expiry(source: Expiry, asked: Expiry, given: Expiry) -> None:
    assert forks.inherit(asked, source) == given


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class TestCutting:
    @given(messages=st.lists(JSON_VALUES, max_size=6), count=st.integers(0, 8), indent=st.booleans())
    def test_messages_are_cut_where_they_end(self, messages: list[object], count: int, indent: bool) -> None:
        body = orjson.dumps(messages, option=orjson.OPT_INDENT_2 if indent else None)
        kept, length = json_mode.messages_of(body)
        cut = json_mode.first(kept, min(count, length))
        assert orjson.loads(json_mode.array(cut)) == messages[:count]
        assert kept.startswith(cut)

    def test_messages_keep_their_own_bytes(self) -> None:
        kept, _ = json_mode.messages_of(b'[ 1.10 , {"a" : "}],\\",["}, [1,2] ]')
        assert json_mode.first(kept, 1).strip() == b"1.10"
        assert json_mode.first(kept, 2).strip() == b'1.10 , {"a" : "}],\\",["}'
        assert json_mode.first(kept, 3) == kept

    @pytest.mark.parametrize(
        ("content_type", "data", "length", "sub_offset", "part"),
        [
            ("text/plain", b"hello", 5, 0, b""),
            ("text/plain", b"hello", 5, 3, b"hel"),
            ("text/plain", b"hello", 5, 5, b"hello"),
            ("Application/JSON; charset=utf-8", b"1,[2,3],4", 3, 2, b"1,[2,3]"),
            ("application/json", b"1,2", 2, 0, b""),
            ("text/plain", b"", 0, 0, b""),
        ],
    )
    def test_parts(self, content_type: str, data: bytes, length: int, sub_offset: int, part: bytes) -> None:
        assert forks.part(content_type, data, length=length, sub_offset=sub_offset) == part

    @pytest.mark.parametrize(("data", "length"), [(b"", 0), (b"hi", 2)])
    def test_more_than_there_is(self, data: bytes, length: int) -> None:
        with pytest.raises(BadRequest):
            forks.part("text/plain", data, length=length, sub_offset=length + 1)


class TestPieces:
    @pytest.mark.parametrize(
        ("starts", "position", "tail", "found"),
        [
            ([0], 0, 0, []),
            ([0], 0, 9, [(0, 0, 9)]),
            ([0], 4, 9, [(0, 4, 9)]),
            ([0], 9, 9, []),
            ([5, 0], 0, 9, [(1, 0, 5), (0, 5, 9)]),
            ([5, 0], 2, 9, [(1, 2, 5), (0, 5, 9)]),
            ([5, 0], 5, 9, [(0, 5, 9)]),
            ([5, 0], 7, 9, [(0, 7, 9)]),
            ([5, 0], 0, 5, [(1, 0, 5)]),
            ([8, 5, 0], 0, 9, [(2, 0, 5), (1, 5, 8), (0, 8, 9)]),
            ([8, 5, 0], 6, 9, [(1, 6, 8), (0, 8, 9)]),
            # A fork of a fork that begins before its source does has nothing of it, only of its source.
            ([3, 5, 0], 0, 9, [(2, 0, 3), (0, 3, 9)]),
            ([5, 5, 0], 0, 9, [(2, 0, 5), (0, 5, 9)]),
            ([0, 5, 0], 0, 9, [(0, 0, 9)]),
        ],
    )
    def test_of_a_lineage(
        self, starts: list[int], position: int, tail: int, found: list[tuple[int, int, int]]
    ) -> None:
        assert forks.pieces(enumerate(starts), position, tail=tail) == found

    def test_nobody_is_asked_for_what_a_stream_has_itself(self) -> None:
        def lineage() -> Iterator[tuple[str, int]]:
            yield "fork", 5
            raise AssertionError("its source was asked")

        assert forks.pieces(lineage(), 5, tail=9) == [("fork", 5, 9)]

    @given(
        starts=st.lists(st.integers(0, 20), max_size=5),
        position=st.integers(0, 25),
        length=st.integers(0, 20),
    )
    def test_lie_end_to_end(self, starts: list[int], position: int, length: int) -> None:
        starts.append(0)
        tail = max(starts[0] + length, position)
        found = forks.pieces(enumerate(starts), position, tail=tail)
        ends = [position, *(until for _, _, until in found)]
        assert [after for _, after, _ in found] == ends[:-1]
        assert ends[-1] == tail
        assert all(starts[stream] <= after < until for stream, after, until in found)
        assert all(one > other for (one, *_), (other, *_) in itertools.pairwise(found))


class TestRules:
    @pytest.mark.parametrize(
        ("stream", "content_type", "fork", "verdict"),
        [
            (source(), "", Fork("a"), 10),
            (source(), "TEXT/plain;x=1", Fork("a", 4), 4),
            (source(), "", Fork("a", 10), 10),
            (source(), "", Fork("a", 11), InvalidOffset),
            (source(), "text/html", Fork("a", 11), ContentTypeMismatch),
            (source(deleted=True, forks=1), "text/html", Fork("a"), SourceGone),
        ],
    )
    def test_where_to_fork(
        self, stream: Stream, content_type: str, fork: Fork, verdict: int | type[StreamError]
    ) -> None:
        new = NewStream(content_type, fork=fork)
        if isinstance(verdict, int):
            assert rules.check_fork(new, fork, stream) == verdict
        else:
            with pytest.raises(verdict):
                rules.check_fork(new, fork, stream)

    def test_what_is_taken_from_the_source(self) -> None:
        fork = Fork("a", None, 2)
        new = rules.fork(
            NewStream("", batch=Batch(b"own", 3), fork=fork), fork, Page(source(), 4, [8], [b"abcd"])
        )
        assert new == NewStream("text/plain", NEVER, Batch(b"abown", 5), fork=Fork("a", 4, 2))
        stream = rules.create(new, now=1.0)
        assert (stream.start, stream.tail, stream.fork) == (4, 9, Fork("a", 4, 2))

    @pytest.mark.parametrize(
        ("stream", "now", "error"),
        [
            (source(), 0.0, None),
            (source(forks=1), 0.0, None),
            (source(forks=1, deleted=True), 0.0, StreamGone),
            (Stream("t", "a/b", SOON, 0, False, None, None, 0.0), 0.0, None),
            (Stream("t", "a/b", SOON, 0, False, None, None, 0.0), 2e9, StreamNotFound),
            (Stream("t", "a/b", SOON, 0, False, None, None, 0.0, forks=1), 2e9, StreamGone),
        ],
    )
    def test_what_is_there(self, stream: Stream, now: float, error: type[StreamError] | None) -> None:
        if error is None:
            rules.check_there(stream, now=now)
        else:
            with pytest.raises(error):
                rules.check_there(stream, now=now)

    @pytest.mark.parametrize(
        ("new", "same"),
        [
            (NewStream("", fork=Fork("a", 4, 1)), True),
            (NewStream("text/plain", LONG, fork=Fork("a", None, 1)), True),
            (NewStream("text/plain", SHORT, fork=Fork("a", 4, 1)), False),
            (NewStream("text/html", fork=Fork("a", 4, 1)), False),
            (NewStream("", fork=Fork("a", 5, 1)), False),
            (NewStream("", fork=Fork("a", 4)), False),
            (NewStream("", fork=Fork("b", 4, 1)), False),
            (NewStream("text/plain", LONG), False),
        ],
    )
    def test_create_where_there_is_one(self, new: NewStream, same: bool) -> None:
        there = Stream("t", "text/plain", LONG, 9, False, None, None, 0.0, Fork("a", 4, 1))
        kept = Stream("s", "text/plain", LONG, 9, True, None, None, 0.0, forks=1, deleted=True)
        if same:
            rules.check_create(there, new, source=kept)
            return
        with pytest.raises(StreamExists):
            rules.check_create(there, new, source=kept)

    def test_a_deleted_stream_keeps_its_place(self) -> None:
        with pytest.raises(StreamExists):
            rules.check_create(source(forks=1, deleted=True), NewStream("text/plain"))

    def test_the_last_fork_leaves_a_deleted_source(self) -> None:
        two = rules.forked(rules.forked(source()))
        assert two.forks == 2
        one = rules.released(two)
        assert not rules.is_left(one)
        assert not rules.is_left(rules.released(one))
        assert rules.is_left(rules.released(source(forks=1, deleted=True)))
