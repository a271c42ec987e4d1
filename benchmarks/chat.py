"""The whole chat beside what people build without it: first words, later ones, sockets, and opening."""

import asyncio
import json
import statistics
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from benchmarks.client import Connection, connections, request
from benchmarks.peers import HERE, Peer, site
from benchmarks.rounds import Say, Scale, beneath
from benchmarks.site.model import DIGITS, STAMP
from benchmarks.table import Row, Target

_STAMP: Final = STAMP.encode()
_TOKEN: Final = "a" * 32
_READERS: Final = 200
_PACE: Final = 20  # pieces a second to each of them; Channels keeps up with that
_CHAT: Final = "/api/chat?id=talk"


class Ear(asyncio.Protocol):
    """One connection, of whose answer it notes how old each piece is when it arrives, in nanoseconds."""

    def __init__(self) -> None:
        self.open = asyncio.get_running_loop().create_future()
        self.arrived = asyncio.Event()
        self.ages: list[int] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if not self.open.done():
            self.open.set_result(None)
        for part in data.split(_STAMP)[1:]:
            self.ages.append(now - int(part[:DIGITS]))
            self.arrived.set()

    async def heard(self, count: int) -> None:
        """Until so many pieces have arrived."""
        while len(self.ages) < count:
            self.arrived.clear()
            await self.arrived.wait()


async def answers(scale: Scale, files: Path, say: Say) -> list[Row]:
    """How long after the POST the first words are there, and how old later ones are; both by turns."""
    say("an answer's first words")
    turns, pieces = 10 * scale.rounds, 20
    asked = f"pieces={pieces} pause=20"
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    with beneath(files) as here, site(here) as peer:
        for turn in range(turns + 3):
            plain = await _plain(peer, asked, pieces)
            chat = await _chat(peer, asked, pieces)
            if turn >= 3:  # it is warm
                ours.append(chat)
                theirs.append(plain)
    first = [each[0] for each in ours], [each[0] for each in theirs]
    later = [each[1] - other[1] for each, other in zip(ours, theirs, strict=True)]
    return [
        _medians("first words after the POST", "ms", "plain SSE", *first, Target(1.5, at_most=True)),
        Row("each later word, beyond plain SSE", "ms", "", later, [], Target(5, at_most=True)),
    ]


async def _plain(peer: Peer, asked: str, pieces: int) -> tuple[float, float]:
    async with connections(peer.url, Ear, 1) as (ear,):
        begin = time.perf_counter()
        ear.transport.write(request("POST", "/plain", asked.encode()))
        await ear.heard(1)
        first = time.perf_counter() - begin
        await ear.heard(pieces)
        return 1e3 * first, statistics.median(ear.ages[1:]) / 1e6


async def _chat(peer: Peer, asked: str, pieces: int) -> tuple[float, float]:
    async with connections(peer.url, Ear, 1) as (ear,), connections(peer.url, Connection, 1) as (writer,):
        ear.transport.write(request("GET", "/api/chat-stream?id=talk&offset=now&live=sse"))
        await ear.open
        begin = time.perf_counter()
        asking = asyncio.create_task(_send(writer, asked))
        await ear.heard(1)
        first = time.perf_counter() - begin
        await ear.heard(pieces)
        await asking
        return 1e3 * first, statistics.median(ear.ages[1:]) / 1e6


async def _send(writer: Connection, text: str) -> None:
    message = {"id": str(time.monotonic_ns()), "role": "user", "parts": [{"type": "text", "content": text}]}
    headers = {"Cookie": f"csrftoken={_TOKEN}", "X-CSRFToken": _TOKEN}
    body = json.dumps({"messages": [message]}).encode()
    await writer.ask(request("POST", _CHAT, body, headers=headers))


async def sockets(scale: Scale, files: Path, say: Say) -> list[Row]:
    """What one more delivery costs the server: many sockets, less what the same answer costs with one."""
    pieces = int(_PACE * scale.live_seconds)
    asked = f"pieces={pieces} pause={1000 // _PACE}"
    ways = (
        ("/ws/chat/talk?offset=now", partial(_send, text=asked)),
        ("/group", partial(_to_group, text=asked)),
    )
    costs: tuple[list[float], list[float]] = ([], [])
    for number in range(scale.rounds):
        say(f"round {number + 1} of {scale.rounds}: {_READERS} sockets")
        with beneath(files) as here, site(here) as peer:
            for (path, begin), cost in zip(ways, costs, strict=True):
                one, many = [
                    await _relayed(peer, path, pieces, begin=begin, readers=count) for count in (1, _READERS)
                ]
                cost.append(1e6 * (many - one) / (pieces * (_READERS - 1)))
    what, target = f"WebSocket delivery to {_READERS}, CPU", Target(0.2, at_most=True)
    return [Row(what, "µs", "group_send", *costs, target)]


async def _to_group(writer: Connection, text: str) -> None:
    await writer.ask(request("POST", "/group", text.encode()))


async def _relayed(
    peer: Peer,
    path: str,
    pieces: int,
    *,
    begin: Callable[[Connection], Coroutine[Any, Any, None]],
    readers: int,
) -> float:
    """Seconds of CPU that an answer takes which so many sockets read."""
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Origin": "http://127.0.0.1",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with connections(peer.url, Ear, readers) as ears, connections(peer.url, Connection, 1) as (writer,):
        for ear in ears:
            ear.transport.write(request("GET", path, headers=upgrade))
        await asyncio.gather(*(ear.open for ear in ears))
        await asyncio.sleep(1)
        before = peer.cpu_seconds()
        asking = asyncio.create_task(begin(writer))
        async with asyncio.timeout(60):
            await asyncio.gather(*(ear.heard(pieces) for ear in ears))
        await asking
        return peer.cpu_seconds() - before


async def opening(scale: Scale, files: Path, say: Say) -> list[Row]:
    """Opening a long conversation, by a client on node."""
    say("opening a long conversation")
    with beneath(files) as here, site(here, long=True) as peer:
        long = await _opened(peer, "long", scale.rounds)
        same = await _opened(peer, "same", scale.rounds)
    what, hydrated = "opening 2 000 messages of 100 000 chunks", long["hydrated"]
    return [
        Row(what, "ms", "read and fold", hydrated, long["folded"], Target(0.02, at_most=True)),
        _medians(what, "ms", "of 4 000 chunks", hydrated, same["hydrated"], Target(1.25, at_most=True)),
    ]


async def _opened(peer: Peer, conversation: str, times: int) -> dict[str, list[float]]:
    command = ["node", str(HERE / "opening.mjs"), peer.url, conversation, str(times + 1)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return {name: taken[1:] for name, taken in json.loads(output).items()}  # the first is not warm


def _medians(
    work: str, unit: str, against: str, ours: list[float], theirs: list[float], target: Target
) -> Row:
    return Row(work, unit, against, [statistics.median(ours)], [statistics.median(theirs)], target)
