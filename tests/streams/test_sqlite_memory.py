"""What the SQLite store's writer remembers of the file, so that it need not look there, changes no answer."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.stores import sqlite_drain
from durable_chat.streams.stores.base import Batch, NewStream
from durable_chat.streams.stores.sqlite import SQLiteStore
from tests.streams.store_contract import TEXT, by, read_all, text


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "streams.sqlite3")
    yield store
    await store.aclose()


@pytest.fixture(params=[0, 2], ids=["nothing", "two"])
def _little(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_drain, "_STREAMS", request.param)
    monkeypatch.setattr(sqlite_drain, "_PRODUCERS", request.param)


@pytest.mark.usefixtures("_little")
async def test_more_streams_and_producers_than_are_remembered(store: SQLiteStore) -> None:
    paths, names = ["a", "b", "c", "d"], ["p", "q", "r", "s"]
    for path in paths:
        await store.create(path, NewStream(TEXT))
    for seq in range(3):
        for _ in ("sent", "sent again"):
            await asyncio.gather(
                *(
                    store.append(path, by(name, 0, seq, text(name.encode())))
                    for path in paths
                    for name in names
                )
            )
    for path in paths:
        assert sorted(await read_all(store, path)) == sorted(b"pqrs" * 3)


async def test_a_transaction_that_failed_is_not_remembered(store: SQLiteStore) -> None:
    await store.create("a", NewStream(TEXT))
    good = [store.append("a", by("p", 0, seq, text(b"%d" % seq))) for seq in range(3)]
    bad = store.append("a", by("\ud800", 0, 0, text(b"bad")))
    answers = await asyncio.gather(*good, bad, return_exceptions=True)
    assert isinstance(answers[3], UnicodeEncodeError)
    assert not (await store.append("a", by("p", 0, 2, text(b"2")))).new
    assert (await store.append("a", by("p", 0, 3, text(b"3")))).new
    assert await read_all(store, "a") == b"0123"


async def test_a_stream_deleted_and_created_in_one_go(store: SQLiteStore) -> None:
    await store.create("a", NewStream(TEXT))
    await store.append("a", by("p", 0, 0, text(b"old")))
    answers = await asyncio.gather(
        store.append("a", by("p", 0, 1, text(b"older"))),
        store.delete("a"),
        store.create("a", NewStream(TEXT, batch=Batch(b"n", 1))),
        store.append("a", by("p", 0, 0, text(b"ew"))),
        store.create("b", NewStream("", fork=Fork("a", 1))),
    )
    assert answers[3].new
    assert await read_all(store, "a") == b"new"
    assert await read_all(store, "b") == b"n"
