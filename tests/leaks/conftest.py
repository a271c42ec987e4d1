"""The published clients, for a test of its own."""

from tests.clients.conftest import packages  # noqa: F401
