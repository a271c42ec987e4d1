"""Tests of the stream half."""

import pytest

pytest.register_assert_rewrite(
    "tests.streams.catalogue_contract",
    "tests.streams.fork_contract",
    "tests.streams.fork_server_contract",
    "tests.streams.server_contract",
    "tests.streams.store_contract",
)
