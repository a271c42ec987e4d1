"""Server processes on one database and one streams file, and somebody who visits them."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import pytest

from tests import postgres, service
from tests.clients.conftest import packages as packages
from tests.faults.people import Person
from tests.live import LiveServer, ServerName
from tests.streams.postgres import why_not

Serve: TypeAlias = Callable[..., LiveServer]


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[Mapping[str, str]]:
    """Where a test's servers keep rows and streams.

    In files; in a "postgres"; or, as the parameter "service" says, the streams alone at a service.
    """
    kind = getattr(request, "param", "sqlite")
    if kind == "postgres" and (missing := why_not()):
        pytest.skip(missing)
    with ExitStack() as stack:
        match kind:
            case "postgres":
                yield {"DATABASE_URL": stack.enter_context(postgres.database())}
            case "service":
                yield stack.enter_context(service.running()).env
            case _:
                yield {}


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
