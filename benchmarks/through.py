"""What reading through our server costs: the relay before the reference server, against that server direct.

The service that is read through lives on the load's core, as it would on another machine.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers import NODE_MEMORY, RELAY, Peer, elsewhere, node, relay
from benchmarks.rounds import BURDEN, LATENCY, SMALL, Measured, Say, Scale, fan_out, small
from benchmarks.table import Row, Target


async def through(scale: Scale, directory: Path, say: Say) -> list[Row]:
    """The rows that compare the relay with what is behind it."""
    measured: Measured = defaultdict(list)
    for number in range(scale.rounds):
        say(f"round {number + 1} of {scale.rounds}: through the relay")
        with _both() as peers:
            for measure in (small, fan_out):
                for peer in peers if number % 2 else reversed(peers):
                    for row, figure in (await measure(peer, scale)).items():
                        measured[row, peer.name].append(figure)
    return [
        Row(f"{work}, relayed", unit, NODE_MEMORY, measured[work, RELAY], measured[work, NODE_MEMORY], target)
        for work, unit, target in (
            (SMALL, "reads/s", Target(0.5)),
            (LATENCY, "ms", Target(0.6, at_most=True)),
            (BURDEN, "% of a core", Target(0.65, at_most=True)),
        )
    ]


@contextmanager
def _both() -> Iterator[tuple[Peer, Peer]]:
    with node() as direct, elsewhere() as service, relay(service) as through:
        yield through, direct
