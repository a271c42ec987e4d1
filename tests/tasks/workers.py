"""A worker process beside a live server: on its database, or on Redis."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias
from uuid import uuid4

from tests.live import ROOT, LiveServer

Kept: TypeAlias = Literal["database", "redis"]

REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/7")
GRACE_SECONDS = 30.0


class Worker:
    """What writes the answers of a server. It may die, and another may be started in its place."""

    def __init__(self, server: LiveServer, kept: Kept, queue: str) -> None:
        self._environment = server.environment
        self._log = server.directory / "worker.log"
        command = {
            "database": [
                "db_worker",
                f"--queue-name={queue}",
                "--interval=0.05",
                "--no-startup-delay",
                "--no-reload",
            ],
            "redis": ["rqworker", queue, "--job-class=django_tasks_rq.Job"],
        }[kept]
        self._command = [sys.executable, "manage.py", *command]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        """All of it, without one more instruction."""
        if self._process is None:
            return
        for pid in (self._process.pid, *self._forked()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def _forked(self) -> list[int]:
        """Who works for it: rq has a process, in a group of its own, for each task."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(pid) for pid in children.read_text().split()] if children.exists() else []

    def end(self) -> bool:
        """As a deploy does; whether it ended by itself."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True


def environment(kept: Kept, queue: str) -> dict[str, str]:
    """What makes a site of the demo whose answers are written by workers, and where no task is lost."""
    return {
        "DJANGO_SETTINGS_MODULE": "tests.tasks.site",
        "TASKS_ON": kept,
        "TASKS_QUEUE": queue,
        "TASKS_AGAIN_SECONDS": "3600",
        "TEST_REDIS_URL": REDIS,
    }


def new_queue() -> str:
    return f"chat-{uuid4().hex[:12]}"


def forget(kept: Kept, queue: str, *, directory: Path) -> None:
    """Lose every task that no worker has begun."""
    if kept == "redis":
        import redis

        with redis.Redis.from_url(REDIS) as client:
            client.delete(f"rq:queue:{queue}")
    else:
        with closing(sqlite3.connect(directory / "live.sqlite3", timeout=20)) as connection, connection:
            connection.execute("DELETE FROM django_tasks_database_dbtaskresult WHERE status = 'READY'")


@cache
def why_not(kept: Kept) -> str:
    """Why these tests are skipped: something is missing, and ``REQUIRE_SERVICES=1`` does not ask for it."""
    if os.environ.get("REQUIRE_SERVICES") == "1":
        return ""
    package = {"database": "django_tasks_db", "redis": "django_tasks_rq"}[kept]
    if find_spec(package) is None:
        return f"{package} is not installed"
    if kept == "redis":
        import redis

        try:
            with redis.Redis.from_url(REDIS) as client:
                client.ping()
        except redis.RedisError as error:
            return f"no Redis at TEST_REDIS_URL: {error}"
    return ""
