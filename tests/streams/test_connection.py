"""One connection, byte by byte: however what comes is cut, an answer is whole or it is an error."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_chat.streams.client.connection import HEAD_BYTES, UNREAD_BYTES, Connection, Garbled
from durable_chat.streams.client.transport import Patience
from durable_chat.streams.protocol.exchange import Response
from tests.streams.scripted import outgoing

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


class Wire(asyncio.Transport):
    """The other end of a connection, without a network."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = Connection(idle=self._freed, gone=self._left)
        self.connection.connection_made(self)
        self.written = b""
        self.paused = self.gone = self.idle = False

    def _freed(self, connection: Connection) -> None:
        self.idle = True

    def _left(self, connection: Connection) -> None:
        self.gone = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.gone

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def abort(self) -> None:
        self.hang_up()

    def hang_up(self, error: Exception | None = None) -> None:
        if not self.gone:
            self.gone = True
            self.connection.connection_lost(error)

    async def say(self, *pieces: bytes) -> None:
        """Each as a segment of its own, as long as somebody listens."""
        for piece in pieces:
            if self.gone:
                return
            self.connection.data_received(piece)
            await asyncio.sleep(0)


async def answered(
    pieces: Sequence[bytes], *, method: str = "GET", hang_up: bool = False
) -> tuple[Wire, Response, bytes]:
    """What a reader makes of an answer. Raises what the reader is told instead."""
    wire = Wire()

    async def read() -> tuple[Response, bytes]:
        async with await wire.connection.ask(outgoing(method, patience=Patience(read=5))) as response:
            return response, await response.read()

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    await wire.say(*pieces)
    if hang_up:
        wire.hang_up()
    return wire, *await reading


def cut(wire: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = sorted({0, len(wire), *(at % (len(wire) + 1) for at in cuts)})
    return [wire[begin:end] for begin, end in pairwise(edges)]


# --- any answer, cut anywhere ------------------------------------------------------------------------------

TOKENS = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=8).map(lambda name: f"x-{name}")
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=12)
HEADERS = st.dictionaries(TOKENS, VALUES, max_size=4)
BODIES = st.lists(st.binary(min_size=1, max_size=30), max_size=4)
INTERIM = st.sampled_from(
    [b"", b"HTTP/1.1 100 Go on\r\n\r\n", b"HTTP/1.1 103 Hints\r\nx-link: y\r\n\r\n" * 2]
)
CUTS = st.lists(st.integers(0, 400), max_size=8)


def head(headers: dict[str, str], *more: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in headers.items()), *more, "", ""]
    return "\r\n".join(lines).encode()


def by_length(headers: dict[str, str], body: list[bytes]) -> bytes:
    whole = b"".join(body)
    return head(headers, f"content-length: {len(whole)}") + whole


def by_chunks(headers: dict[str, str], body: list[bytes]) -> bytes:
    chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (len(piece), piece) for piece in body)
    return head(headers, "transfer-encoding: chunked") + chunks + b"0\r\nx-trailer: t\r\n\r\n"


def to_the_end(headers: dict[str, str], body: list[bytes]) -> bytes:
    return head(headers) + b"".join(body)


FRAMINGS = [by_length, by_chunks, to_the_end]


@settings(max_examples=300, deadline=None)
@given(framing=st.sampled_from(FRAMINGS), headers=HEADERS, body=BODIES, interim=INTERIM, cuts=CUTS)
def test_an_answer_is_the_same_however_it_is_cut(framing, headers, body, interim, cuts):
    pieces = cut(interim + framing(headers, body), cuts)
    wire, response, read = asyncio.run(answered(pieces, hang_up=framing is to_the_end))
    assert (response.status, read) == (200, b"".join(body))
    assert {name: value for name, value in response.headers.items() if name.startswith("x-")} == headers
    assert wire.idle is (framing is not to_the_end)
    assert wire.gone is (framing is to_the_end)


@settings(max_examples=300, deadline=None)
@given(framing=st.sampled_from(FRAMINGS[:2]), headers=HEADERS, body=BODIES, cuts=CUTS, at=st.integers(0, 400))
def test_what_breaks_off_is_never_taken_for_the_whole(framing, headers, body, cuts, at):
    whole = framing(headers, body)
    with pytest.raises(ConnectionError):
        asyncio.run(answered(cut(whole[: at % len(whole)], cuts), hang_up=True))


@settings(max_examples=500, deadline=None)
@given(
    framing=st.sampled_from(FRAMINGS),
    body=BODIES,
    cuts=CUTS,
    at=st.integers(0, 400),
    junk=st.binary(max_size=6),
    instead=st.integers(0, 6),
)
def test_garbage_is_an_answer_or_an_error_that_ends_the_connection(framing, body, cuts, at, junk, instead):
    whole = framing({"x-a": "b"}, body)
    at %= len(whole) + 1
    pieces = cut(whole[:at] + junk + whole[at + instead :], cuts)

    async def read(wire: Wire) -> None:
        try:
            async with await wire.connection.ask(outgoing()) as response:
                await response.read()
        except ConnectionError:
            assert wire.gone

    async def hear() -> None:
        wire = Wire()
        reading = asyncio.create_task(read(wire))
        await asyncio.sleep(0)
        await wire.say(*pieces)
        wire.hang_up()
        await reading

    asyncio.run(hear())


# --- what is refused ---------------------------------------------------------------------------------------

REFUSED = {
    "both framings": OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    "two lengths": OK + b"content-length: 2\r\ncontent-length: 2\r\n\r\nab",
    "a list of lengths": OK + b"content-length: 2, 2\r\n\r\nab",
    "a signed length": OK + b"content-length: +2\r\n\r\nab",
    "chunks of something": OK + b"transfer-encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    "an unknown encoding": OK + b"transfer-encoding: gzip\r\n\r\nab",
    "a space before the colon": OK + b"transfer-encoding : chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    "a folded header": OK + b"x: y\r\n z\r\ncontent-length: 2\r\n\r\nab",
    "a bare line feed": OK + b"x: y\nz: a\r\ncontent-length: 2\r\n\r\nab",
    "a NUL": OK + b"x: \0\r\ncontent-length: 2\r\n\r\nab",
    "another protocol": b"HTTP/1.1 101 Switch\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nab",
    "a chunk too large": CHUNKED + b"fffffffffffffffff\r\n",
    "a body without an end": CHUNKED + b"2\r\nabcd\r\n",
    "a head without an end": OK + b"x: " + b"y" * (HEAD_BYTES + 1),
    "a thousand headers": OK + b"x: y\r\n" * HEAD_BYTES,
    "interim answers for ever": b"HTTP/1.1 100 -\r\n\r\n" * HEAD_BYTES,
    "a trailer without an end": CHUNKED + b"0\r\nx: " + b"y" * (HEAD_BYTES + 1),
    "much ado about a chunk": CHUNKED + b"2;" + b"y" * (HEAD_BYTES + 1),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_two_readers_could_read_in_two_ways_is_refused(name: str) -> None:
    said = REFUSED[name]
    with pytest.raises(Garbled):
        await answered([said[at : at + 1000] for at in range(0, len(said), 1000)])


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("GET", OK + b"content-length: 2\r\n\r\nab" + OK),
        ("GET", OK + b"content-length: 2\r\n\r\nabc"),
        ("GET", OK + b"content-length: 2\r\nconnection: close\r\n\r\nabc"),
        ("GET", CHUNKED + b"2\r\nab\r\n0\r\n\r\n" + OK),
        ("GET", b"HTTP/1.1 204 -\r\n\r\nab"),
        ("GET", b"HTTP/1.1 304 -\r\ncontent-length: 2\r\n\r\nab"),
        ("HEAD", OK + b"content-length: 2\r\n\r\nab"),
        ("HEAD", CHUNKED + b"2\r\nab\r\n0\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
async def test_a_connection_that_said_too_much_is_not_used_again(
    method: str, said: bytes, apart: bool
) -> None:
    pieces = [said[:-1], said[-1:]] if apart else [said]
    wire, response, body = await answered(pieces, method=method)
    assert response.status in (200, 204, 304)
    assert body in (b"", b"ab")
    assert wire.gone


async def test_a_body_that_ends_with_its_connection_does_not_end_with_a_broken_one() -> None:
    wire = Wire()
    asking = asyncio.create_task(wire.connection.ask(outgoing()))
    await asyncio.sleep(0)
    await wire.say(OK + b"\r\nab")
    response = await asking
    wire.hang_up(ConnectionResetError())
    with pytest.raises(ConnectionResetError):
        await response.read()


# --- what is kept ------------------------------------------------------------------------------------------


async def test_who_does_not_read_is_not_sent_more() -> None:
    wire = Wire()
    size = 4 * UNREAD_BYTES
    asking = asyncio.create_task(wire.connection.ask(outgoing()))
    await asyncio.sleep(0)
    await wire.say(OK + b"content-length: %d\r\n\r\n" % size)
    response = await asking
    pieces = aiter(response.body)  # type: ignore[arg-type]
    for _ in range(3):
        await wire.say(bytes(UNREAD_BYTES))
        assert not wire.paused
        await wire.say(b"x")
        assert wire.paused
        assert len(await anext(pieces)) == UNREAD_BYTES + 1
        assert not wire.paused
    await wire.say(bytes(UNREAD_BYTES - 3))
    assert wire.idle
    assert len(await anext(pieces)) == UNREAD_BYTES - 3
    with pytest.raises(StopAsyncIteration):
        await anext(pieces)


async def test_the_next_answer_is_not_held_up_by_an_unread_one() -> None:
    wire = Wire()
    asking = asyncio.create_task(wire.connection.ask(outgoing()))
    await asyncio.sleep(0)
    await wire.say(OK + b"content-length: %d\r\n\r\n" % (2 * UNREAD_BYTES))
    response = await asking
    await wire.say(bytes(UNREAD_BYTES + 1), bytes(UNREAD_BYTES - 1))
    assert wire.idle
    assert not wire.paused
    assert len(await response.read()) == 2 * UNREAD_BYTES


async def test_who_leaves_when_the_answer_is_there_leaves_the_next_request_alone() -> None:
    """The connection is not theirs any more."""
    wire = Wire()
    leaving = asyncio.create_task(wire.connection.ask(outgoing()))
    await asyncio.sleep(0)
    wire.connection.data_received(OK + b"content-length: 2\r\n\r\nab")
    assert wire.idle
    leaving.cancel()
    staying = asyncio.create_task(wire.connection.ask(outgoing()))
    await asyncio.wait({leaving})
    await wire.say(OK + b"content-length: 2\r\n\r\ncd")
    assert (await staying).body == b"cd"


async def test_one_that_is_closed_carries_nothing() -> None:
    wire = Wire()
    wire.hang_up()
    with pytest.raises(ConnectionResetError):
        await wire.connection.ask(outgoing())
    assert wire.written == b""


def test_what_goes_out_is_not_shown() -> None:
    assert "sentinel" not in repr(outgoing("POST", body=b"sentinel"))
