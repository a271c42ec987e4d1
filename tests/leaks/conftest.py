"""The published clients, and a streams service whose secrets no other test's server has."""

from collections.abc import Iterator, Mapping

import pytest

from tests import service
from tests.clients.conftest import packages  # noqa: F401


@pytest.fixture(params=["embedded", "remote"])
def own_service(request: pytest.FixtureRequest) -> Iterator[service.Service | None]:
    """None: the streams are embedded."""
    if request.param == "embedded":
        yield None
        return
    with service.running() as running:
        yield running


@pytest.fixture
def streams_env(own_service: service.Service | None) -> Mapping[str, str]:
    return own_service.env if own_service else {}
