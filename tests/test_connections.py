"""One HTTP session a loop, which ends with it."""

import asyncio

from asgiref.sync import async_to_sync

from durable_chat.connections import http_session


def test_each_loop_has_one_that_is_closed_with_it() -> None:
    async def opened() -> list[object]:
        return [http_session(), http_session()]

    first, again = asyncio.run(opened())
    other, _ = async_to_sync(opened)()
    assert first is again is not other
    assert first.closed
    assert other.closed
