"""A PostgreSQL for tests: a schema of one's own, made by the app's migrations and dropped at the end."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

ROOT = Path(__file__).resolve().parents[2]
URL = os.environ.get("TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/test")


@dataclass(frozen=True, slots=True)
class Schema:
    """Where a test's streams are."""

    name: str

    def parameters(self) -> Mapping[str, Any]:
        """What a ``PostgresStore`` connects with."""
        return {"conninfo": URL, "options": f"-c search_path={self.name}", "application_name": self.name}

    def execute(self, statement: str, *given: object) -> list[tuple[Any, ...]]:
        """The rows of a statement, on a connection of its own."""
        with psycopg.connect(**self.parameters(), autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), given or None)
            return cursor.fetchall() if cursor.description else []

    def empty(self) -> None:
        for table in ("batch", "producer", "stream"):
            self.execute(f"DELETE FROM durable_streams_{table}")

    def environment(self) -> dict[str, str]:
        """For a process of its own whose site is ``postgres_site``."""
        settings = {"DJANGO_SETTINGS_MODULE": "tests.streams.postgres_site"}
        return {**os.environ, **settings, "TEST_POSTGRES_URL": URL, "TEST_POSTGRES_SCHEMA": self.name}


@cache
def why_not() -> str:
    """Why these tests are skipped: there is no PostgreSQL, and ``REQUIRE_SERVICES=1`` does not ask for it."""
    if os.environ.get("REQUIRE_SERVICES") == "1":
        return ""
    try:
        psycopg.connect(URL, connect_timeout=3).close()
    except psycopg.OperationalError as error:
        return f"no PostgreSQL at TEST_POSTGRES_URL: {error}"
    return ""


@contextmanager
def schema() -> Iterator[Schema]:
    """A migrated schema."""
    made = Schema(f"streams_{uuid4().hex[:12]}")
    made.execute(f"CREATE SCHEMA {made.name}")
    try:
        migrate = [sys.executable, "-m", "django", "migrate", "--verbosity=0"]
        subprocess.run(migrate, check=True, cwd=ROOT, env=made.environment())
        yield made
    finally:
        made.execute(f"DROP SCHEMA {made.name} CASCADE")
