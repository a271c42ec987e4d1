"""PostgreSQL for servers of their own: a database, or a cluster that may be shut down; gone at the end."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from uuid import uuid4

import psycopg

from tests.live import free_port
from tests.streams.postgres import URL


@contextmanager
def database() -> Iterator[str]:
    """Its URL. Whoever is still connected at the end is thrown out."""
    name = f"durable_chat_{uuid4().hex[:12]}"
    with psycopg.connect(URL, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield f"{URL.rpartition('/')[0]}/{name}"
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


class Cluster:
    """A PostgreSQL server of a test's own, which listens on one port for life."""

    def __init__(self, directory: Path) -> None:
        self._data = directory / "data"
        self._port = free_port()
        self.url = f"postgres://postgres@127.0.0.1:{self._port}/postgres"

    def make(self) -> None:
        _run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "-D", str(self._data))

    def start(self) -> None:
        """Returns when it answers; after a crash, when it has recovered what was committed."""
        listening = f"-c listen_addresses=127.0.0.1 -c port={self._port} -c unix_socket_directories=''"
        log = str(self._data / "server.log")
        _run("pg_ctl", "start", "--wait", "-D", str(self._data), "-l", log, "-o", listening)

    def stop(self, mode: Literal["fast", "immediate"]) -> None:
        """Returns when it is gone: in order ("fast"), or as when the power fails ("immediate")."""
        _run("pg_ctl", "stop", "--wait", "-D", str(self._data), "-m", mode)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A server that runs."""
    with TemporaryDirectory(prefix="durable-chat-postgres-") as name:
        if os.geteuid() == 0:
            shutil.chown(name, "postgres")
        made = Cluster(Path(name))
        made.make()
        made.start()
        try:
            yield made
        finally:
            if (Path(name) / "data" / "postmaster.pid").exists():
                made.stop("immediate")


def why_no_cluster() -> str:
    """Why tests that need one are skipped, unless ``REQUIRE_SERVICES=1`` asks for it."""
    if os.environ.get("REQUIRE_SERVICES") == "1" or _program("pg_ctl") is not None:
        return ""
    return "no pg_ctl: PostgreSQL's own programs are not installed here"


@cache
def _program(name: str) -> str | None:
    """Debian keeps those of the server out of the PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(versions[-1]) if versions else None)


def _run(name: str, *arguments: str) -> None:
    """As the user whom the server insists on, if this is root."""
    program = _program(name)
    assert program is not None, why_no_cluster()
    user = "postgres" if os.geteuid() == 0 else None
    subprocess.run([program, *arguments], check=True, user=user, cwd="/", stdout=subprocess.DEVNULL)
