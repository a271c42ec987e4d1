"""The servers that are measured: how each is started, on which core, and what it costs the machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import postgres

HERE: Final = Path(__file__).parent
CORES: Final = sorted(os.sched_getaffinity(0))
PINNED: Final = len(CORES) > 1

EMBEDDED: Final = "embedded"
NODE_FILE: Final = "Node file"
NODE_MEMORY: Final = "Node memory"
RELAY: Final = "relay"
SITE: Final = "site"
POSTGRES: Final = "PostgreSQL"

_OURS: Final = (sys.executable, "-m", "benchmarks.serve")

_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Peer:
    """A running server. Its figures are read from the kernel: user and system time, all threads."""

    name: str
    url: str
    pid: int

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident_kib(self) -> int:
        return self._status("VmRSS")

    def threads(self) -> int:
        return self._status("Threads")

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def pin_generator() -> None:
    """Keep this process off the servers' core."""
    if PINNED:
        os.sched_setaffinity(0, CORES[1:2])


@contextmanager
def embedded(file: Path, *, host: Path | None = None) -> Iterator[Peer]:
    """Ours over a SQLite file; with ``host``, beside a Django site whose database that is."""
    files = [str(file)] if host is None else [str(file), str(host)]
    with _started(EMBEDDED, [*_OURS, "sqlite", *files]) as peer:
        yield peer


@contextmanager
def over_postgres(conninfo: str) -> Iterator[Peer]:
    """Ours over a PostgreSQL, which itself runs wherever the kernel puts it."""
    with _started(POSTGRES, [*_OURS, "postgres", conninfo]) as peer:
        yield peer


@contextmanager
def canned() -> Iterator[Peer]:
    with _started("canned", [sys.executable, "-m", "benchmarks.canned"]) as peer:
        yield peer


@contextmanager
def node() -> Iterator[Peer]:
    """The reference server in memory."""
    with _started(NODE_MEMORY, ["node", str(HERE / "serve.mjs")]) as peer:
        yield peer


@contextmanager
def elsewhere() -> Iterator[Peer]:
    """The same where the load is: a service on another machine."""
    with _started(NODE_MEMORY, ["node", str(HERE / "serve.mjs")], apart=True) as peer:
        yield peer


@contextmanager
def relay(service: Peer) -> Iterator[Peer]:
    """Our read proxy before it, bare."""
    with _started(RELAY, [sys.executable, "-m", "benchmarks.relay", service.url]) as peer:
        yield peer


@contextmanager
def site(here: Path, *, long: bool = False) -> Iterator[Peer]:
    """A whole site with the chat, its files in that directory; with ``long`` conversations in it."""
    command = [sys.executable, "-m", "benchmarks.site", str(here / "site.sqlite3")]
    with _started(SITE, [*command, *(["--long"] if long else [])]) as peer:
        yield peer


@contextmanager
def everyone(directory: Path) -> Iterator[dict[str, Peer]]:
    """All of them, fresh, side by side; ours over a PostgreSQL too, if there is one."""
    node = ["node", str(HERE / "serve.mjs")]
    with ExitStack() as stack:
        peers = [
            stack.enter_context(embedded(directory / "streams.sqlite3")),
            stack.enter_context(_started(NODE_FILE, [*node, str(directory / "node")])),
            stack.enter_context(_started(NODE_MEMORY, node)),
        ]
        if postgres.at_hand():
            peers.append(stack.enter_context(over_postgres(stack.enter_context(postgres.schema()))))
        yield {peer.name: peer for peer in peers}


@contextmanager
def _started(name: str, command: list[str], *, apart: bool = False) -> Iterator[Peer]:
    with nullcontext() if apart else _on_servers_core():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=HERE.parent, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError(f"{name} did not start: {' '.join(command)}")
        yield Peer(name, url, process.pid)
    finally:
        process.kill()
        process.wait()


@contextmanager
def _on_servers_core() -> Iterator[None]:
    # A child inherits its parent's cores from its first instruction on, threads included.
    before = os.sched_getaffinity(0)
    if PINNED:
        os.sched_setaffinity(0, CORES[:1])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
