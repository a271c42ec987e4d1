"""The rounds: every piece of work on every server that it concerns, close together in time."""

import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from benchmarks import growth, live, loads, orm, postgres
from benchmarks.client import Connection, connections, request
from benchmarks.peers import (
    EMBEDDED,
    NODE_FILE,
    NODE_MEMORY,
    POSTGRES,
    Peer,
    canned,
    embedded,
    everyone,
    over_postgres,
)
from benchmarks.table import Row, Target

Figures: TypeAlias = dict[str, float]
Measured: TypeAlias = defaultdict[tuple[str, str], list[float]]
Say: TypeAlias = Callable[[str], None]

ONE: Final = "append, 1 writer, durable"
MANY: Final = "append, 32 writers, durable"
MANY_POSTGRES: Final = "append, 32 writers, PostgreSQL"
FIFTY: Final = "append, batches of 50, 1 writer"
CATCH_UP: Final = "catch-up of 10 000 messages"
SMALL: Final = "read of the last 10 messages"
LATENCY: Final = "SSE to 500 readers at 50/s, p50"
BURDEN: Final = "SSE to 500 readers at 50/s, CPU"
IDLE: Final = "idle SSE reader, memory"

_FLAT: Final = Target(1.25, at_most=True)


@dataclass(frozen=True, slots=True)
class Scale:
    """How long and how large. Times in seconds; ``turns``: how often each of two sizes is asked."""

    rounds: int = 5
    seconds: float = 2.0
    live_seconds: float = 5.0
    messages: int = 100_000
    streams: int = 10_000
    turns: int = 2_000


@dataclass(frozen=True, slots=True)
class Work:
    """Something to measure: it answers figures by the names of rows."""

    peers: tuple[str, ...]
    measure: Callable[[Peer, Scale], Awaitable[Figures]]


async def _one(peer: Peer, scale: Scale) -> Figures:
    return {ONE: await loads.appends(peer, writers=1, seconds=scale.seconds)}


async def _many(peer: Peer, scale: Scale) -> Figures:
    return {MANY: await loads.appends(peer, writers=32, seconds=scale.seconds)}


async def _many_postgres(peer: Peer, scale: Scale) -> Figures:
    return {MANY_POSTGRES: await loads.appends(peer, writers=32, seconds=scale.seconds)}


async def _fifty(peer: Peer, scale: Scale) -> Figures:
    return {FIFTY: await loads.appends(peer, writers=1, seconds=scale.seconds, messages=50)}


async def _catch_up(peer: Peer, scale: Scale) -> Figures:
    path = loads.fresh()
    await loads.fill(peer, path, 10_000)
    return {CATCH_UP: await loads.catch_ups(peer, path, seconds=scale.seconds)}


async def small(peer: Peer, scale: Scale) -> Figures:
    return {SMALL: await loads.small_reads(peer, readers=32, seconds=scale.seconds)}


async def fan_out(peer: Peer, scale: Scale) -> Figures:
    seen = await live.fan_out(peer, readers=500, per_second=50, seconds=scale.live_seconds)
    if seen.arrived < 0.99:  # a latency of what did arrive would flatter
        raise AssertionError(f"{peer.name} delivered {seen.arrived:.1%} of the messages in time.")
    return {LATENCY: seen.p50, BURDEN: 100 * seen.cpu}


async def _idle(peer: Peer, _: Scale) -> Figures:
    memory, threads = await live.idle(peer, readers=1000)
    return {IDLE: memory, "threads of 1000 readers": threads}


WORKS: Final = {
    # First, before anything leaves free memory behind that readers would seem to cost nothing in.
    "idle": Work((EMBEDDED, NODE_MEMORY), _idle),
    "one": Work((EMBEDDED, NODE_FILE), _one),
    "many": Work((EMBEDDED, NODE_FILE, NODE_MEMORY), _many),
    "postgres": Work((POSTGRES, NODE_FILE), _many_postgres),
    "fifty": Work((EMBEDDED, NODE_FILE), _fifty),
    "catch-up": Work((EMBEDDED, NODE_MEMORY), _catch_up),
    "small": Work((EMBEDDED, NODE_MEMORY), small),
    "fan-out": Work((EMBEDDED, NODE_MEMORY), fan_out),
}


async def side_by_side(works: list[str], scale: Scale, directory: Path, say: Say) -> list[Row]:
    """The rows that compare us with the reference server. Who goes first changes with the round."""
    measured: Measured = defaultdict(list)
    if not postgres.at_hand():
        say("no PostgreSQL at BENCH_POSTGRES_URL: nothing about it")
        works = [name for name in works if POSTGRES not in WORKS[name].peers]
    for number in range(scale.rounds):
        with beneath(directory) as here, everyone(here) as peers:
            for name in works:
                say(f"round {number + 1} of {scale.rounds}: {name}")
                work = WORKS[name]
                turn = number % len(work.peers)
                for peer in work.peers[turn:] + work.peers[:turn]:
                    for row, figure in (await work.measure(peers[peer], scale)).items():
                        measured[row, peer].append(figure)
    return list(_rows(measured))


def _rows(measured: Measured) -> Iterator[Row]:
    for work, unit, against, target in (
        (MANY_POSTGRES, "messages/s", NODE_FILE, Target(6, 9)),
        (ONE, "messages/s", NODE_FILE, Target(2.5, 3.5)),
        (MANY, "messages/s", NODE_FILE, Target(6, 9)),
        (MANY, "messages/s", NODE_MEMORY, Target(0.4, 0.6)),
        (FIFTY, "messages/s", NODE_FILE, Target(3)),
        (CATCH_UP, "streams/s", NODE_MEMORY, Target(2.5)),
        (SMALL, "reads/s", NODE_MEMORY, Target(1)),
        (LATENCY, "ms", NODE_MEMORY, Target(0.6, at_most=True)),
        (BURDEN, "% of a core", NODE_MEMORY, Target(0.65, at_most=True)),
        (IDLE, "KiB", NODE_MEMORY, Target(1, at_most=True)),
    ):
        ours = POSTGRES if work == MANY_POSTGRES else EMBEDDED
        if (work, ours) in measured:
            yield Row(work, unit, against, measured[work, ours], measured[work, against], target)


async def flatness(scale: Scale, directory: Path, say: Say) -> list[Row]:
    """The rows that compare a large one of ours with a small one."""
    say(f"a stream of {scale.messages} messages")
    with beneath(directory) as here:
        append, read = await growth.messages(here, scale.messages, turns=scale.turns)
    say(f"a store of {scale.streams} streams")
    with beneath(directory) as here:
        append_beside, read_beside = await growth.streams(here, scale.streams, turns=scale.turns)
    messages, streams = f"{scale.messages:,}".replace(",", " "), f"{scale.streams:,}".replace(",", " ")
    return [
        Row(work, "µs", against, [cost.large], [cost.small], _FLAT)
        for work, against, cost in (
            (f"append to a stream of {messages} messages", "one of 10", append),
            (f"tail read of a stream of {messages} messages", "one of 10", read),
            (f"append among {streams} streams", "among 10", append_beside),
            (f"tail read among {streams} streams", "among 10", read_beside),
        )
    ]


async def beside_django(scale: Scale, directory: Path, say: Say) -> list[Row]:
    """The row that says what our writers do to the host's."""
    say("a Django write beside 32 writers")
    with beneath(directory) as here:
        _, p99, _ = await orm.orm_writes(here, writers=32, seconds=2 * scale.live_seconds)
    return [Row("Django write beside 32 writers, p99", "ms", "", [p99], [], Target(50, at_most=True))]


async def across(scale: Scale, directory: Path, say: Say) -> list[Row]:
    """The rows that say how soon one process hears of what was appended at another."""
    say("a reader at another process")
    rows: list[Row] = []
    with ExitStack() as stack:
        file = stack.enter_context(beneath(directory)) / "streams.sqlite3"
        pairs = {"SQLite": [stack.enter_context(embedded(file)) for _ in range(2)]}
        if postgres.at_hand():
            conninfo = stack.enter_context(postgres.schema())
            pairs["PostgreSQL"] = [stack.enter_context(over_postgres(conninfo)) for _ in range(2)]
        for name, (writer, reader) in pairs.items():
            seen = await live.fan_out(
                writer, at=reader, readers=1, per_second=20, seconds=2 * scale.live_seconds
            )
            rows += [
                Row(
                    f"reader at another process, {name}, {part}",
                    "ms",
                    "",
                    [figure],
                    [],
                    Target(50, at_most=True),
                )
                for part, figure in (("p50", seen.p50), ("p99", seen.p99))
            ]
    return rows


async def ceiling(scale: Scale) -> float:
    """Requests a second that the load generator reaches when the server does next to nothing."""
    with canned() as peer:
        async with connections(peer.url, Connection, 32) as opened:
            post = request("POST", "/", loads.CHUNK)
            return await loads.rate(opened, [post] * len(opened), seconds=scale.seconds)


@contextmanager
def beneath(directory: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=directory, prefix="durable-streams-") as name:
        yield Path(name)
