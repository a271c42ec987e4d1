"""The decoder of server-sent events: what it makes of bytes, and that no cut changes it."""

from collections.abc import Sequence
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_chat.streams.client.sse import Decoder, Event


def decode(*pieces: bytes) -> list[Event]:
    decoder = Decoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_lines_end_with_lf_cr_or_crlf(end):
    body = end.join([b"event: data", b"data: [", b"data: 1]", b"", b"data:x", b"", b""])
    assert decode(body) == [("data", b"[\n1]"), ("message", b"x")]


@pytest.mark.parametrize("raw", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_nothing_else_ends_a_line(raw):
    text = orjson.dumps({"delta": f"a{raw}b"})
    assert decode(b"data: " + text + b"\n\n") == [("message", text)]
    assert decode(f"data: a{raw}b\n\n".encode()) == [("message", f"a{raw}b".encode())]


def test_comments_ids_and_retries_are_passed_over():
    assert decode(b": hello\nid: 7\nretry: 1\ndata: x\n: y\n\n:\n\n") == [("message", b"x")]


def test_one_space_after_the_colon_belongs_to_the_frame():
    assert decode(b"data:  x \ndata\ndata:\n\n") == [("message", b" x \n\n")]


def test_a_byte_order_mark_is_stripped_from_the_beginning_only():
    assert decode(b"\xef", b"\xbb\xbfdata: x\n\n\xef\xbb\xbfdata: y\n\n") == [("message", b"x")]


def test_an_event_without_data_is_not_dispatched_and_names_nothing():
    assert decode(b"event: data\n\ndata: x\n\n") == [("message", b"x")]


def test_an_event_that_the_end_cuts_off_is_dropped():
    assert decode(b"data: x\n\nevent: control\ndata: {}\n") == [("message", b"x")]


def test_an_event_is_told_as_soon_as_its_blank_line_is_there():
    decoder = Decoder()
    assert list(decoder.feed(b"data: x\r\n\r")) == [("message", b"x")]
    assert list(decoder.feed(b"\ndata: y\r\n\r\n")) == [("message", b"y")]


ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
TEXTS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])).map(str.encode)
LINES = st.one_of(
    st.just(b""),
    TEXTS,
    TEXTS.map(lambda text: b"data: " + text),
    TEXTS.map(lambda text: b"data:" + text),
    TEXTS.map(lambda text: b"event: " + text),
    TEXTS.map(lambda text: b": " + text),
)
BODIES = st.lists(st.tuples(LINES, ENDS).map(b"".join)).map(b"".join)


def cut(body: bytes, places: Sequence[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(bounds)]


@given(body=BODIES, places=st.lists(st.integers(min_value=0)))
def test_any_cut_gives_the_same_events(body, places):
    whole = decode(body)
    assert decode(*cut(body, places)) == whole
    assert decode(*(body[at : at + 1] for at in range(len(body)))) == whole


@given(datas=st.lists(TEXTS, min_size=1), end=ENDS)
def test_what_is_framed_comes_back(datas, end):
    body = b"".join(b"event: data" + end + b"data: " + data + end + end for data in datas)
    assert decode(body) == [("data", data) for data in datas]
