"""The published JavaScript clients, run by node against a live server as some Visitor's browser."""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.browser.wire import Wire
from tests.clients.visitor import HERE, Visitor
from tests.leaks.search import OF_THE_SITE, files, leaks, sentinels
from tests.live import live_server


@pytest.fixture(scope="session")
def packages() -> None:
    """The packages of the lock file, installed unless they are."""
    if not (HERE / "node_modules" / ".package-lock.json").exists():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=HERE, check=True)


@pytest.fixture(scope="session")
def uvicorn(packages: None, streams_env: Mapping[str, str]) -> Iterator[str]:
    """When all have been there, its secrets are looked for in all that it answered, wrote and logged."""
    told = sentinels(*OF_THE_SITE)
    with TemporaryDirectory(prefix="durable-chat-") as name:
        directory = Path(name)
        with live_server(env={**told, **streams_env}, directory=directory) as base, Wire(base) as wire:
            yield wire.base
        told |= {name: value for name, value in streams_env.items() if name.endswith("SECRET")}
        assert leaks(told, {"the wire": bytes(wire.answered)} | files([directory])) == []


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
