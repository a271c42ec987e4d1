"""Fixtures of the stream half."""

from collections.abc import Iterator

import pytest

from tests.streams import postgres
from tests.streams.postgres import Schema


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
