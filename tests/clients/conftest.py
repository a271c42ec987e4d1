"""The published JavaScript clients, run by node against a live server as some Visitor's browser."""

import subprocess
from collections.abc import Callable, Iterator, Mapping

import pytest

from tests.clients.visitor import HERE, Visitor
from tests.live import live_server


@pytest.fixture(scope="session")
def packages() -> None:
    """The packages of the lock file, installed unless they are."""
    if not (HERE / "node_modules" / ".package-lock.json").exists():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=HERE, check=True)


@pytest.fixture(scope="session")
def uvicorn(packages: None, streams_env: Mapping[str, str]) -> Iterator[str]:
    with live_server("uvicorn", env=streams_env) as base:
        yield base


@pytest.fixture(scope="session")
def daphne(packages: None, streams_env: Mapping[str, str]) -> Iterator[str]:
    with live_server("daphne", env=streams_env) as base:
        yield base


@pytest.fixture
def arrive() -> Iterator[Callable[[str], Visitor]]:
    """Opens browser sessions at a server."""
    visitors: list[Visitor] = []

    def opened(base: str) -> Visitor:
        visitors.append(Visitor(base))
        return visitors[-1]

    yield opened
    for visitor in visitors:
        visitor.http.close()


@pytest.fixture
def visitor(uvicorn: str, arrive: Callable[[str], Visitor]) -> Visitor:
    return arrive(uvicorn)


@pytest.fixture
def stranger(uvicorn: str, arrive: Callable[[str], Visitor]) -> Visitor:
    return arrive(uvicorn)


@pytest.fixture
def conversation(visitor: Visitor) -> str:
    return visitor.begin()
