"""The queue between event loops and a store's threads."""

import asyncio
import threading

import pytest

from durable_chat.streams.protocol.errors import TooManyRequests, Unavailable
from durable_chat.streams.stores.jobs import Inbox


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
