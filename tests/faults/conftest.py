"""Server processes on one database and one streams file, and somebody who visits them."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest

from tests import postgres
from tests.clients.conftest import packages as packages
from tests.faults.people import Person
from tests.live import LiveServer, ServerName
from tests.streams.postgres import why_not

Serve: TypeAlias = Callable[..., LiveServer]


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[Mapping[str, str]]:
    """Where a test's servers keep rows and streams: in files, or as the parameter "postgres" says."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield {}
        return
    if missing := why_not():
        pytest.skip(missing)
    with postgres.database() as url:
        yield {"DATABASE_URL": url}


@pytest.fixture
def serve(tmp_path: Path, database: Mapping[str, str]) -> Iterator[Serve]:
    """Starts another server on the test's files.

    With the shortest lease, so that a run whose process died need not be waited for.
    """
    servers: list[LiveServer] = []

    def started(*, lease_seconds: int = 1, kind: ServerName = "uvicorn", **env: str) -> LiveServer:
        server = LiveServer(
            tmp_path, server=kind, env={"LEASE_SECONDS": str(lease_seconds), **database, **env}
        )
        if not servers:
            server.migrate()
        servers.append(server)
        server.start()
        return server

    yield started
    for server in servers:
        server.kill()


@pytest.fixture
def server(serve: Serve) -> LiveServer:
    return serve()


@pytest.fixture
async def person(server: LiveServer) -> AsyncIterator[Person]:
    async with Person(server.base) as person:
        yield person
