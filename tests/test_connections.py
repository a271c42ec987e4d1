"""One HTTP transport a loop, which ends with it."""

import asyncio
from typing import Any

from asgiref.sync import async_to_sync

from durable_chat.connections import http_transport


def test_each_loop_has_one_that_is_closed_with_it() -> None:
    async def opened() -> list[Any]:
        return [http_transport(), http_transport()]

    first, again = asyncio.run(opened())
    other, _ = async_to_sync(opened)()
    assert first is again is not other
    assert first.client.closed
    assert other.client.closed
