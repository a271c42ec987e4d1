"""Fixtures of the stream half."""

import asyncio
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop

from tests.streams import postgres
from tests.streams.postgres import Schema

ON_BOTH_LOOPS = {"test_client_http", "test_transports"}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What opens connections does so under asyncio's loop as under the one that servers bring."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    return {**loops, "uvloop": uvloop.new_event_loop} if item.path.stem in ON_BOTH_LOOPS else loops


@pytest.fixture(scope="session")
def migrated() -> Iterator[Schema]:
    """A schema of PostgreSQL, one a test run."""
    if reason := postgres.why_not():
        pytest.skip(reason)
    with postgres.schema() as schema:
        yield schema


@pytest.fixture
def schema(migrated: Schema) -> Schema:
    """The same, without streams."""
    migrated.empty()
    return migrated
