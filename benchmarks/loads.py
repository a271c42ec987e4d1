"""Requests one after another on each of some connections, for a while: appends and reads."""

import asyncio
import itertools
import random
import time
from typing import Final
from urllib.parse import quote

import orjson

from benchmarks.client import Connection, connections, request
from benchmarks.peers import Peer


def _chunk(delta: str, *, after_ms: int = 0) -> bytes:
    return orjson.dumps(
        {
            "type": "TEXT_MESSAGE_CONTENT",
            "messageId": "msg-5d1f0c0e8a",
            "delta": delta,
            "timestamp": 1_790_000_000_000 + after_ms,
        }
    )


CHUNK: Final = _chunk(" the next few words")
"""What a model's answer is made of: about 120 bytes."""

_LETTERS: Final = "etaoinshrdlucmfwypvbgkqjxz"  # the frequent ones first
_random = random.Random(50)

_names = itertools.count()


def fresh() -> str:
    """The path of a stream that is not there yet."""
    return f"/v1/stream/bench-{next(_names)}"


def _words(number: int) -> bytes:
    """A chunk like that, whose words are like no other's: a server may compress what it keeps."""
    words = (
        "".join(_LETTERS[min(int(_random.expovariate(0.16)), 25)] for _ in range(_random.randint(2, 7)))
        for _ in range(4)
    )
    return _chunk(f" {' '.join(words)}", after_ms=20 * number)


async def create(connection: Connection, path: str) -> None:
    await connection.ask(request("PUT", path))


async def appends(peer: Peer, *, writers: int, seconds: float, messages: int = 1) -> float:
    """Messages a second. Each writer has a stream of its own, and appends when the last is acknowledged."""
    body = CHUNK if messages == 1 else b"[%s]" % b",".join(map(_words, range(messages)))
    async with connections(peer.url, Connection, writers) as opened:
        paths = [fresh() for _ in opened]
        for connection, path in zip(opened, paths, strict=True):
            await create(connection, path)
        posts = [request("POST", path, body) for path in paths]
        return messages * await rate(opened, posts, seconds=seconds)


async def rate(opened: list[Connection], requests: list[bytes], *, seconds: float) -> float:
    """Answers a second when each connection sends its request again and again."""
    waking = asyncio.create_task(_stay_awake()) if len(opened) == 1 else None
    begin = time.perf_counter()
    until = begin + seconds
    counts = await asyncio.gather(*map(_repeat, opened, requests, itertools.repeat(until)))
    took = time.perf_counter() - begin
    if waking is not None:
        waking.cancel()
    return sum(counts) / took


async def _stay_awake() -> None:
    # With one connection, this core would sleep between any two answers, and whoever answers has to wake it.
    while True:  # noqa: ASYNC110 - there is nothing to wait for
        await asyncio.sleep(0)


async def _repeat(connection: Connection, what: bytes, until: float) -> int:
    done = 0
    while time.perf_counter() < until:
        await connection.ask(what)
        done += 1
    return done


async def fill(peer: Peer, path: str, messages: int) -> None:
    """A stream with that many messages, each appended by itself."""
    async with connections(peer.url, Connection, 32) as opened:
        await create(opened[0], path)
        turns = iter(range(messages))
        post = request("POST", path, CHUNK)

        async def work(connection: Connection) -> None:
            for _ in turns:
                await connection.ask(post)

        await asyncio.gather(*map(work, opened))


async def catch_ups(peer: Peer, path: str, *, seconds: float) -> float:
    """Whole readings a second of a stream, from its beginning to its tail, by two readers."""
    async with connections(peer.url, Connection, 2) as opened:
        begin = time.perf_counter()
        counts = await asyncio.gather(*(_readings(one, path, begin + seconds) for one in opened))
        return sum(counts) / (time.perf_counter() - begin)


async def _readings(connection: Connection, path: str, until: float) -> int:
    done = 0
    while time.perf_counter() < until:
        offset, at_tail = "-1", False
        while not at_tail:
            answer = await connection.ask(request("GET", f"{path}?offset={quote(offset)}"))
            offset, at_tail = answer.header("stream-next-offset"), bool(answer.header("stream-up-to-date"))
        done += 1
    return done


async def small_reads(peer: Peer, *, readers: int, seconds: float) -> float:
    """Reads a second of the last ten messages of a stream of a hundred."""
    async with connections(peer.url, Connection, readers) as opened:
        get = request("GET", await near_tail(opened[0], fresh(), before=90))
        return await rate(opened, [get] * readers, seconds=seconds)


async def near_tail(connection: Connection, path: str, *, before: int) -> str:
    """Where to read the last ten messages of a new stream with ``before`` others."""
    await create(connection, path)
    return await ten_more(connection, path, before=before)


async def ten_more(connection: Connection, path: str, *, before: int = 1) -> str:
    """Append ``before`` messages and ten; where to read the ten."""
    post = request("POST", path, CHUNK)
    for _ in range(before):
        offset = (await connection.ask(post)).header("stream-next-offset")
    for _ in range(10):
        await connection.ask(post)
    return f"{path}?offset={quote(offset)}"
