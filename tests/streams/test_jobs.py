"""The queue between event loops and a store's threads."""

import asyncio
import threading
from pathlib import Path

import orjson
import pytest

from durable_chat.streams.embedded.asgi import StreamsApplication
from durable_chat.streams.protocol.errors import TooManyRequests, Unavailable
from durable_chat.streams.server import StreamServer
from durable_chat.streams.stores.jobs import Inbox
from durable_chat.streams.stores.sqlite import SQLiteStore
from tests.streams.test_door import OPEN, Visit


async def test_more_than_it_holds_is_refused_and_what_it_holds_is_done() -> None:
    inbox: Inbox[None] = Inbox(most=2)
    asked = [asyncio.create_task(inbox.ask(lambda _, number=number: number)) for number in range(2)]
    await asyncio.sleep(0)  # lets both be put
    with pytest.raises(TooManyRequests):
        await inbox.ask(lambda _: 2)
    jobs, _ = inbox.take(timeout=0, at_most=10)
    for job in jobs:
        assert job.future is not None
        job.future.set_result(job.work(None))
    assert await asyncio.gather(*asked) == [0, 1]
    room = asyncio.create_task(inbox.ask(lambda _: 3))
    await asyncio.sleep(0)
    assert not room.done()
    room.cancel()


async def test_a_closed_inbox_takes_nothing() -> None:
    inbox: Inbox[None] = Inbox()
    threading.Thread(target=inbox.close).start()
    while True:
        jobs, goes_on = inbox.take(timeout=5, at_most=10)
        if not goes_on:
            break
    assert jobs == []
    with pytest.raises(Unavailable):
        await inbox.ask(lambda _: 1)


async def test_whoever_comes_when_it_is_full_is_told_when_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SQLiteStore(tmp_path / "streams.sqlite3")
    application = StreamsApplication(StreamServer(store).handle, root="/v1/stream/", access=OPEN)
    with monkeypatch.context() as patch:
        patch.setattr(store._writes, "_most", 0)
        refused = await Visit("PUT", "/v1/stream/a", b"x").to(application)
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert orjson.loads(refused.body)["code"] == "too_many_requests"
    assert (await Visit("PUT", "/v1/stream/a", b"x").to(application)).status == 201
    await store.aclose()
