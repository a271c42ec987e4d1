"""The chat half on PostgreSQL: the tests of its rows and runs once more, in a process of their own."""

import os
import subprocess
import sys
from uuid import uuid4

import pytest

from tests.live import ROOT
from tests.streams.postgres import URL, why_not

AGAIN = [
    f"tests/test_{name}.py"
    for name in (
        "queue",
        "recovery",
        "stop",
        "sweep",
        "send",
        "machine",
        "admin",
        "journal",
        "sharing",
        "numbers",
        "snapshot",
        "bad_input",
    )
]
THERE_ALONE = "tests/crossing.py"


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_what_holds_on_sqlite_holds_on_postgres() -> None:
    """Django makes `test_<name>` for them and drops it."""
    server, _, _ = URL.rpartition("/")
    env = os.environ | {"DATABASE_URL": f"{server}/durable_chat_{uuid4().hex[:12]}"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *AGAIN, THERE_ALONE]
    told = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout[-8000:]
