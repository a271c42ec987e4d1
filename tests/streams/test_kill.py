"""A server killed with -9 under 50 writers: what it acknowledged is there, once, whole and in order."""

import asyncio
import os
import random
from collections import defaultdict
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from durable_chat.streams.client import Stamp, StreamClient
from durable_chat.streams.client.pool import Pool
from durable_chat.streams.protocol.errors import Unavailable
from tests.streams.served import Served

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "10"))
WRITERS = 50
STREAMS = 5  # several producers share one, as nothing in the protocol forbids
LIFE = (50, 400)  # acknowledgements between two deaths: some come before the first checkpoint, some after


@dataclass(slots=True)
class Site:
    """Whichever server lives now, and how much it has acknowledged."""

    connections: Pool
    server: Served
    acknowledged: int = 0
    ending: bool = False
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def client(self) -> StreamClient:
        return self.server.client(self.connections)

    async def count(self) -> None:
        async with self.changed:
            self.acknowledged += 1
            self.changed.notify_all()

    async def until(self, acknowledged: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.acknowledged >= acknowledged)

    async def replace(self, server: Served) -> None:
        async with self.changed:
            self.server = server
            self.changed.notify_all()

    async def another_than(self, server: Served) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.server is not server)


@dataclass(slots=True)
class Writer:
    """An idempotent producer that has one batch in flight, and sends it until it is acknowledged."""

    name: int
    seq: int = 0

    @property
    def path(self) -> str:
        return f"s{self.name % STREAMS}"

    def batch(self, seq: int) -> list[dict[str, Any]]:
        """One to three messages, of which none looks whole when a byte is missing."""
        return [
            {"writer": self.name, "seq": seq, "part": part, "filling": f"{seq}☃" * (1 + (seq * 7) % 300)}
            for part in range(1 + seq % 3)
        ]

    async def run(self, site: Site) -> None:
        while not site.ending:
            await self.send(site)
            self.seq += 1
            await site.count()

    async def send(self, site: Site) -> None:
        stamp = Stamp(f"writer-{self.name}", 0, self.seq)
        while True:
            server = site.server
            try:
                await site.client().append(self.path, self.batch(self.seq), producer=stamp)
            except Unavailable:  # it is dead; a gap, a fence or any other refusal fails the test
                await site.another_than(server)
            else:
                return


@dataclass(slots=True)
class Witness:
    """Reads each stream on from where it was, and expects every producer's batches whole and in order."""

    offsets: dict[str, str] = field(default_factory=lambda: defaultdict(lambda: "-1"))
    found: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    async def look(self, client: StreamClient, writers: list[Writer]) -> None:
        for path in sorted({writer.path for writer in writers}):
            items: list[dict[str, Any]] = []
            up_to_date = False
            while not up_to_date:
                page = await client.read(path, offset=self.offsets[path])
                items += page.items
                self.offsets[path], up_to_date = page.offset, page.up_to_date
            self._check(items, writers)

    def _check(self, items: list[dict[str, Any]], writers: list[Writer]) -> None:
        while items:
            writer = writers[items[0]["writer"]]
            expected = writer.batch(self.found[writer.name])
            assert items[: len(expected)] == expected
            del items[: len(expected)]
            self.found[writer.name] += 1


async def test_no_death_costs_or_doubles_a_message(tmp_path: Path) -> None:
    fate = random.Random(1831)
    file = tmp_path / "streams.sqlite3"
    writers = [Writer(name) for name in range(WRITERS)]
    witness = Witness()
    async with aclosing(Pool()) as connections:
        site = Site(connections, await asyncio.to_thread(Served, file))
        try:
            for stream in range(STREAMS):
                await site.client().create(f"s{stream}")
            async with asyncio.TaskGroup() as writing:
                for writer in writers:
                    writing.create_task(writer.run(site))
                for _ in range(ROUNDS):
                    await site.until(site.acknowledged + fate.randint(*LIFE))
                    site.server.kill()
                    promised = [writer.seq for writer in writers]
                    successor = await asyncio.to_thread(Served, file)
                    # Nobody has written since: what was promised is there, and at most one batch more each.
                    await witness.look(successor.client(connections), writers)
                    for writer, seq in zip(writers, promised, strict=True):
                        assert witness.found[writer.name] - seq in {0, 1}
                    await site.replace(successor)
                site.ending = True
            await witness.look(site.client(), writers)
            assert [witness.found[writer.name] for writer in writers] == [writer.seq for writer in writers]
        finally:
            site.server.end()
    print(f"{ROUNDS} deaths, {site.acknowledged} batches acknowledged by {WRITERS} writers")
