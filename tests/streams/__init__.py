"""Tests of the stream half."""

import pytest

pytest.register_assert_rewrite("tests.streams.server_contract", "tests.streams.store_contract")
