"""The protocol's rules, as tables and properties."""

import base64
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_chat.streams.protocol import cursors, expiry, headers, json_mode, offsets, producers, sse
from durable_chat.streams.protocol.errors import (
    BadRequest,
    InvalidEpochStart,
    InvalidOffset,
    ProducerGap,
    StaleEpoch,
    StreamError,
)
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.producers import ProducerStamp, ProducerState, is_new

POSITIONS = st.integers(0, 2**53 - 1)


class TestOffsets:
    @given(POSITIONS, POSITIONS)
    def test_sort_like_positions(self, one: int, other: int) -> None:
        assert (offsets.encode(one) < offsets.encode(other)) == (one < other)
        assert offsets.decode(offsets.encode(one)) == one

    @given(POSITIONS)
    def test_are_plain_tokens(self, position: int) -> None:
        offset = offsets.encode(position)
        assert offset not in {offsets.START, offsets.NOW}
        assert offset.isalnum()
        assert len(offset) < 256

    def test_sentinels(self) -> None:
        assert offsets.decode("-1") == 0
        assert offsets.decode("now") is None

    @pytest.mark.parametrize(
        "text",
        ["", " ", "0", "1", "-2", "NOW", "0,1", "0 1", "../etc", "a\x00", "1" * 15, "1" * 17, "1" * 16 + "\n",
         "\u0660" * 16, "0000000000000001.3", "+000000000000001", "00000000_0000000"],
    )  # fmt: skip
    def test_refuses_what_it_cannot_have_issued(self, text: str) -> None:
        with pytest.raises(InvalidOffset):
            offsets.decode(text)

    @given(st.text())
    def test_takes_text_or_refuses_it(self, text: str) -> None:
        try:
            position = offsets.decode(text)
        except InvalidOffset:
            return
        assert position is None or text == "-1" or offsets.encode(position) == text


class TestCursors:
    NOW = 1_728_432_000 + 20 * 1000 + 7  # in the thousandth interval

    @pytest.mark.parametrize(
        ("echoed", "issued"),
        [
            (None, "1000"),
            ("999", "1000"),
            ("0", "1000"),
            ("1000", "1005"),
            ("1050", "1055"),
            ("", "1000"),
            ("abc", "1000"),
            ("-5", "1000"),
            ("²", "1000"),
            ("9" * 19, "1000"),
        ],
    )
    def test_is_the_interval_or_ahead_of_the_echo(self, echoed: str | None, issued: str) -> None:
        assert cursors.issue(echoed, now=self.NOW, jitter=5) == issued

    @given(st.integers(0, 10**12), st.floats(1.8e9, 4e9, allow_nan=False), st.integers(1, cursors.MAX_JITTER))
    def test_never_goes_back(self, echoed: int, now: float, jitter: int) -> None:
        assert int(cursors.issue(str(echoed), now=now, jitter=jitter)) > echoed


class TestProducers:
    @pytest.mark.parametrize(
        ("state", "stamp", "expected"),
        [
            (None, (0, 0), True),
            (None, (7, 0), True),
            (None, (0, 1), ProducerGap),
            ((1, 4), (1, 5), True),
            ((1, 4), (1, 4), False),
            ((1, 4), (1, 0), False),
            ((1, 4), (1, 6), ProducerGap),
            ((1, 4), (2, 0), True),
            ((1, 4), (9, 0), True),
            ((1, 4), (2, 1), InvalidEpochStart),
            ((1, 4), (0, 0), StaleEpoch),
            ((1, 4), (0, 5), StaleEpoch),
        ],
    )
    def test_verdicts(
        self, state: tuple[int, int] | None, stamp: tuple[int, int], expected: bool | type[StreamError]
    ) -> None:
        known = None if state is None else ProducerState(*state)
        if isinstance(expected, bool):
            assert is_new(known, ProducerStamp("p", *stamp)) is expected
        else:
            with pytest.raises(expected):
                is_new(known, ProducerStamp("p", *stamp))

    def test_errors_say_where_the_producer_stands(self) -> None:
        with pytest.raises(StaleEpoch) as stale:
            is_new(ProducerState(5, 0), ProducerStamp("p", 4, 1))
        assert stale.value.epoch == 5
        with pytest.raises(ProducerGap) as gap:
            is_new(ProducerState(5, 2), ProducerStamp("p", 5, 9))
        assert gap.value.headers == {"producer-expected-seq": "3", "producer-received-seq": "9"}

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4))))
    def test_whatever_comes_each_batch_is_new_once_and_in_order(self, sent: list[tuple[int, int]]) -> None:
        state: ProducerState | None = None
        taken: list[tuple[int, int]] = []
        for epoch, seq in sent:
            try:
                new = is_new(state, ProducerStamp("p", epoch, seq))
            except StreamError:
                continue
            if new:
                taken.append((epoch, seq))
                state = ProducerState(epoch, seq)
        assert taken == sorted(set(taken))
        for (epoch, seq), (next_epoch, next_seq) in pairwise(taken):
            assert next_seq == (seq + 1 if next_epoch == epoch else 0)

    def test_parses_a_whole_stamp_or_none(self) -> None:
        given_ = {"producer-id": "p", "producer-epoch": "0", "producer-seq": str(2**53 - 1)}
        assert producers.parse(given_) == ProducerStamp("p", 0, 2**53 - 1)
        assert producers.parse({}) is None

    @pytest.mark.parametrize("missing", ["producer-id", "producer-epoch", "producer-seq"])
    def test_a_part_of_a_stamp_is_none(self, missing: str) -> None:
        given_ = {"producer-id": "p", "producer-epoch": "0", "producer-seq": "0"}
        del given_[missing]
        with pytest.raises(BadRequest):
            producers.parse(given_)

    @pytest.mark.parametrize(
        "number", ["", "-1", "+1", "1.0", "1e3", "1abc", " 1", "²", str(2**53), "9" * 5000]
    )
    def test_numbers_are_plain(self, number: str) -> None:
        for name in ("producer-epoch", "producer-seq"):
            with pytest.raises(BadRequest):
                producers.parse(
                    {"producer-id": "p", "producer-epoch": "0", "producer-seq": "0", name: number}
                )

    def test_an_empty_id_is_none(self) -> None:
        with pytest.raises(BadRequest):
            producers.parse({"producer-id": "", "producer-epoch": "0", "producer-seq": "0"})


class TestExpiry:
    @pytest.mark.parametrize("ttl", ["0", "1", "3600", "999999999999999"])
    def test_takes_plain_seconds(self, ttl: str) -> None:
        assert expiry.parse({"stream-ttl": ttl}) == Expiry(ttl=int(ttl))
        assert expiry.describe(Expiry(ttl=int(ttl))) == {"stream-ttl": ttl}

    @pytest.mark.parametrize("ttl", ["", "-1", "+1", "01", "1.0", "1e3", "abc", " 1", "²", "1\n", "9" * 16])
    def test_refuses_other_numbers(self, ttl: str) -> None:
        with pytest.raises(BadRequest):
            expiry.parse({"stream-ttl": ttl})

    @pytest.mark.parametrize(
        "moment",
        ["2030-01-01T00:00:00Z", "2030-01-01T00:00:00.123456789Z", "2030-01-01t01:00:00+01:00",
         "2024-02-29T23:59:59-08:00"],
    )  # fmt: skip
    def test_takes_timestamps_and_gives_them_back(self, moment: str) -> None:
        parsed = expiry.parse({"stream-expires-at": moment})
        assert expiry.describe(parsed) == {"stream-expires-at": moment}

    @pytest.mark.parametrize(
        "moment",
        ["", "soon", "2030-01-01", "2030-01-01T00:00:00", "2030-13-01T00:00:00Z", "2030-02-30T00:00:00Z",
         "2030-01-01T00:00:00+0100", "20300101T000000Z", "2030-W01-1T00:00:00Z", "2030-01-01T00:00:00Z\n",
         "2030-01-01T00:00:00+99:00"],
    )  # fmt: skip
    def test_refuses_other_moments(self, moment: str) -> None:
        with pytest.raises(BadRequest):
            expiry.parse({"stream-expires-at": moment})

    def test_refuses_both(self) -> None:
        with pytest.raises(BadRequest):
            expiry.parse({"stream-ttl": "1", "stream-expires-at": "2030-01-01T00:00:00Z"})

    @given(st.datetimes(datetime(1980, 1, 1), datetime(2200, 1, 1)), st.integers(-14, 14))
    def test_one_moment_in_two_zones_is_the_same(self, moment: datetime, hours: int) -> None:
        moment = moment.replace(tzinfo=UTC)
        here = Expiry(expires_at=moment.isoformat())
        there = Expiry(expires_at=moment.astimezone(timezone(timedelta(hours=hours))).isoformat())
        assert here.same_as(there)
        assert not here.same_as(Expiry())
        assert not here.same_as(Expiry(ttl=1))

    def test_a_moment_passes_whatever_is_touched(self) -> None:
        until = Expiry(expires_at="2030-01-01T00:00:00Z")
        moment = datetime(2030, 1, 1, tzinfo=UTC).timestamp()
        assert not until.is_over(touched=0, now=moment - 0.001)
        assert until.is_over(touched=moment, now=moment)
        assert not until.touch_due(touched=0, now=moment)

    @given(st.integers(1, 10**6), st.floats(0, 2, allow_nan=False))
    def test_reads_that_are_noted_only_when_due_never_shorten_a_life(self, ttl: int, idle: float) -> None:
        sliding = Expiry(ttl=ttl)
        unnoticed = ttl * 0.0999  # a read just too early to be noted
        assert not sliding.touch_due(touched=0, now=unnoticed)
        assert not sliding.is_over(touched=0, now=unnoticed + ttl * 0.999)
        assert sliding.is_over(touched=0, now=ttl * (1.2 + idle))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class TestJsonMode:
    @pytest.mark.parametrize(
        ("body", "stored", "length"),
        [
            (b'{"a":1}', b'{"a":1}', 1),
            (b' \n{"a": 1}\r\n\t', b'{"a": 1}', 1),
            (b"[]", b"", 0),
            (b"[ \n ]", b"", 0),
            (b"[1]", b"1", 1),
            (b"[ 1 , 2 ]", b"1 , 2", 2),
            (b"[[1,2],[3]]", b"[1,2],[3]", 2),
            (b"[[[1,2,3]]]", b"[[1,2,3]]", 1),
            (b"[[]]", b"[]", 1),
            (b'"],["', b'"],["', 1),
            (b"1.00000000000000000000001", b"1.00000000000000000000001", 1),
            (b"null", b"null", 1),
            ('"\u2028\u0085é"'.encode(), '"\u2028\u0085é"'.encode(), 1),
        ],
    )
    def test_flattens_one_level_and_keeps_the_bytes(self, body: bytes, stored: bytes, length: int) -> None:
        assert json_mode.messages_of(body) == (stored, length)

    @pytest.mark.parametrize(
        "body",
        [b"", b" ", b"{", b"{]", b"[1,]", b"{a:1}", b"1 2", b"NaN", b"\xff", b"\xef\xbb\xbf1", b"\x0c1",
         b"'a'", b"[" * 100_000],
    )  # fmt: skip
    def test_refuses_what_is_not_json(self, body: bytes) -> None:
        with pytest.raises(BadRequest):
            json_mode.messages_of(body)

    @given(st.lists(st.lists(JSON_VALUES, min_size=1, max_size=4) | JSON_VALUES.filter(bool), max_size=6))
    def test_batches_read_back_as_one_array(self, sent: list[Any]) -> None:
        wanted: list[Any] = []
        kept: list[bytes] = []
        for value in sent:
            data, length = json_mode.messages_of(orjson.dumps(value))
            messages = value if isinstance(value, list) else [value]
            assert length == len(messages)
            wanted += messages
            kept.append(data)
        assert orjson.loads(json_mode.array(b",".join(kept))) == wanted


def sse_events(raw: bytes) -> list[tuple[str, str]]:
    """As a browser reads them."""
    events = []
    text = raw.decode(errors="surrogateescape").replace("\r\n", "\n").replace("\r", "\n")
    for block in text.split("\n\n"):
        name, lines = "message", []
        for line in block.split("\n"):
            field, _, value = line.partition(":")
            if field == "event":
                name = value.removeprefix(" ")
            elif field == "data":
                lines.append(value.removeprefix(" "))
        if lines:
            events.append((name, "\n".join(lines)))
    return events


class TestServerSentEvents:
    @given(st.text())
    def test_text_arrives_with_its_line_breaks_as_lf(self, text: str) -> None:
        wanted = text.replace("\r\n", "\n").replace("\r", "\n")
        assert sse_events(sse.data(text.encode())) == [("data", wanted)]

    @given(st.binary())
    def test_bytes_arrive_whole(self, payload: bytes) -> None:
        [(name, text)] = sse_events(sse.binary(payload))
        assert name == "data"
        assert base64.b64decode(text, validate=True) == payload

    @given(st.lists(st.sampled_from([b"\r", b"\n", b"event: control", b"data:", b":", b" ", b"x"])))
    def test_no_payload_makes_an_event_of_its_own(self, pieces: list[bytes]) -> None:
        framed = sse.data(b"".join(pieces)) + sse.control("1", cursor="2", up_to_date=True, closed=False)
        assert [name for name, _ in sse_events(framed)] == ["data", "control"]

    @pytest.mark.parametrize(
        ("up_to_date", "closed", "wanted"),
        [
            (False, False, {"streamNextOffset": "07", "streamCursor": "9"}),
            (True, False, {"streamNextOffset": "07", "streamCursor": "9", "upToDate": True}),
            (True, True, {"streamNextOffset": "07", "upToDate": True, "streamClosed": True}),
        ],
    )
    def test_control(self, up_to_date: bool, closed: bool, wanted: dict[str, Any]) -> None:
        [(name, text)] = sse_events(sse.control("07", cursor="9", up_to_date=up_to_date, closed=closed))
        assert (name, orjson.loads(text)) == ("control", wanted)

    def test_keep_alive_is_no_event(self) -> None:
        assert sse_events(sse.KEEP_ALIVE) == []


class TestHeaders:
    @pytest.mark.parametrize(
        ("value", "closes"),
        [
            ("true", True),
            ("TRUE", True),
            ("True", True),
            ("false", False),
            ("1", False),
            ("yes", False),
            ("", False),
        ],
    )
    def test_only_true_closes(self, value: str, closes: bool) -> None:
        assert headers.asks_to_close({"stream-closed": value}) is closes
        assert not headers.asks_to_close({})

    @pytest.mark.parametrize(
        ("content_type", "json", "text"),
        [
            ("application/json", True, True),
            ("Application/JSON; charset=utf-8", True, True),
            ("text/plain", False, True),
            ("TEXT/x", False, True),
            ("application/ndjson", False, False),
            ("application/octet-stream", False, False),
            ("image/png", False, False),
        ],
    )
    def test_content_types(self, content_type: str, json: bool, text: bool) -> None:
        assert headers.is_json(content_type) is json
        assert headers.is_text(content_type) is text
