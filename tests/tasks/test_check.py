"""`manage.py check` on workers that could not be reached, or could not write."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live import ROOT
from tests.tasks.workers import environment, why_not


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ({}, ["no issues"]),
        ({"TASKS_ON": "immediate"}, ["ImmediateBackend", "no workers", "django_tasks_db.DatabaseBackend"]),
        ({"TASKS_ON": "dummy"}, ["DummyBackend", "no workers"]),
        ({"TASKS_ON": "nowhere"}, ["no.such.Backend"]),
        ({"TASKS_KNOWN_QUEUE": "other"}, ["'default'", "refuses", "chat"]),
        ({"STREAMS_STORE": "memory"}, ["memory"]),
        ({"TASKS_APP": "missing"}, ["incomplete", "django_tasks_db"]),
        ({"TASKS_BACKEND": "nope"}, ["TASKS has no 'nope'"]),
    ],
)
def test_check_names_the_problem(tmp_path: Path, site: dict[str, str], words: list[str]) -> None:
    if reason := why_not("database"):
        pytest.skip(reason)
    kept = {"DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}"}
    env = os.environ | kept | environment("database", "chat") | site
    done = subprocess.run(
        [sys.executable, "manage.py", "check"], cwd=ROOT, env=env, capture_output=True, text=True
    )
    for word in words:
        assert word in done.stdout + done.stderr
    assert (done.returncode == 0) == (not site)
