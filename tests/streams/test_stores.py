"""Every store under the same contract."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from durable_chat.streams.embedded.postgres import PostgresStore
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.stores.base import NewStream, StreamStore
from durable_chat.streams.stores.memory import MemoryStore
from durable_chat.streams.stores.sqlite import SQLiteStore
from tests.streams.fork_contract import Forking
from tests.streams.postgres import Schema
from tests.streams.store_contract import TEXT, Clock
from tests.streams.store_life_contract import WholeContract


@pytest.fixture
def clock() -> Clock:
    return Clock()


class TestMemoryStore(WholeContract, Forking):
    @pytest.fixture
    async def store(self, clock: Clock) -> AsyncIterator[StreamStore]:
        store = MemoryStore(clock=clock)
        yield store
        await store.aclose()

    async def test_forgets_when_deleted_streams_would_have_expired(self, clock: Clock) -> None:
        store = MemoryStore(clock=clock)
        await store.create("kept", NewStream(TEXT, Expiry(ttl=60)))
        for _ in range(1000):
            await store.create("a", NewStream(TEXT, Expiry(ttl=1000)))
            await store.delete("a")
        assert len(store._ends) < 100
        clock.now += 100
        assert await store.sweep(limit=10) == 1


class TestSQLiteStore(WholeContract, Forking):
    @pytest.fixture
    async def store(self, clock: Clock, tmp_path: Path) -> AsyncIterator[StreamStore]:
        store = SQLiteStore(tmp_path / "streams.sqlite3", clock=clock)
        yield store
        await store.aclose()


class TestPostgresStore(WholeContract, Forking):
    @pytest.fixture
    async def store(self, clock: Clock, schema: Schema) -> AsyncIterator[StreamStore]:
        store = PostgresStore(schema.parameters, clock=clock)
        yield store
        await store.aclose()
