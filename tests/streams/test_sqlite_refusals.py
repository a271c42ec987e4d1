"""What was refused holds nothing back: whoever asks next sees all that is committed."""

import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from durable_chat.streams.protocol.errors import InvalidOffset
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.stores.base import Batch, NewStream
from durable_chat.streams.stores.sqlite import SQLiteStore
from tests.streams.store_contract import ALL, JSON, messages, read_all

REFUSED = 20  # more than there are readers


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    """Python may collect an error's traceback, and what hangs on it, at any moment: or not, as here."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[tuple[SQLiteStore, SQLiteStore]]:
    """Two on one file, as in two processes."""
    first, second = (SQLiteStore(tmp_path / "streams.sqlite3") for _ in range(2))
    await first.create("a", NewStream(JSON, batch=Batch(b"1,2,3", 3)))
    await first.append("a", messages(b"4", 1))
    yield first, second
    await first.aclose()
    await second.aclose()


async def test_readers_whose_offsets_were_refused_see_what_comes(
    stores: tuple[SQLiteStore, SQLiteStore],
) -> None:
    for store in stores:
        for _ in range(REFUSED):
            with pytest.raises(InvalidOffset):
                await store.read("a", 1, limit=ALL)
    await stores[0].append("a", messages(b"5", 1))
    await stores[0].create("b", NewStream(JSON))
    for store in stores:
        for _ in range(REFUSED):
            assert await read_all(store, "a") == b"1,2,3,4,5"
            assert (await store.head("b")).tail == 0
            assert [listed.path for listed in await store.scan(limit=9)] == ["a", "b"]


async def test_a_writer_whose_fork_was_refused_writes_on(stores: tuple[SQLiteStore, SQLiteStore]) -> None:
    first, second = stores
    with pytest.raises(InvalidOffset):
        await first.create("b", NewStream(JSON, fork=Fork("a", 1)))
    await second.append("a", messages(b"5", 1))
    await first.append("a", messages(b"6", 1))
    for store in stores:
        assert await read_all(store, "a") == b"1,2,3,4,5,6"
