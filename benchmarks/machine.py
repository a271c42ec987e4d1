"""What it was measured on."""

import os
import platform
import sqlite3
import statistics
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.peers import CORES, PINNED


def describe(directory: Path) -> str:
    """One paragraph: the machine, the versions, the date, and how busy others kept it."""
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    pinned = "servers on one core, the load on another" if PINNED else "NOT PINNED: one core for all"
    return (
        f"{datetime.now(UTC):%Y-%m-%d}. {len(CORES)} cores, {_processor()}, {platform.system()}; {pinned}. "
        f"{platform.python_implementation()} {platform.python_version()}, Node {node.removeprefix('v')}, "
        f"SQLite {sqlite3.sqlite_version}. One fsync: {_fsync_ms(directory):.2f} ms. "
        f"Load average: {os.getloadavg()[0]:.1f} at the end."
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _fsync_ms(directory: Path) -> float:
    costs: list[float] = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(100):
            file.write(b"x" * 4096)
            file.flush()
            begin = time.perf_counter()
            os.fsync(file.fileno())
            costs.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(costs)
