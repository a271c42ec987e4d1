"""One HTTP transport a loop, which ends with it; connections to the database, kept for the next touch."""

import asyncio
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import DatabaseError, connections

from durable_chat import threads
from durable_chat.connections import http_transport, in_database, promptly
from durable_chat.streams.client.http import HTTPHandler
from durable_chat.streams.protocol.exchange import Request
from durable_chat.testing import drain
from tests.faults.people import until
from tests.streams.scripted import Say, Scripted


def test_each_loop_has_one_that_is_closed_with_it() -> None:
    async def opened() -> list[Any]:
        return [http_transport(), http_transport()]

    first, again = asyncio.run(opened())
    other, _ = async_to_sync(opened)()
    assert first is again is not other
    assert first.closed
    assert other.closed


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
def test_a_proxy_that_the_environment_names_is_gone_through(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async def read() -> list[bytes]:
        async with Scripted([Say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]")]) as proxy:
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            handler = HTTPHandler("http://streams.example/v1/stream", http_transport)
            async with await handler(Request("GET", "s", {"offset": "-1"})) as response:
                assert response.body == b"[]"
            await http_transport().aclose()
        return proxy.requests

    (request,) = asyncio.run(read())
    assert request.startswith(b"GET http://streams.example/v1/stream/s?offset=-1 HTTP/1.1\r\n")
    assert b"\r\nhost: streams.example\r\n" in request.lower()


def used() -> Any:
    """The thread's own connection, open."""
    connections["default"].ensure_connection()
    return connections["default"]


async def test_touches_that_follow_each_other_share_connections(site: None) -> None:
    opened = [(await in_database(used)).connection for _ in range(30)]
    assert len({id(connection) for connection in opened}) <= 4
    hearts = [(await promptly(used)).connection for _ in range(3)]
    assert len({id(connection) for connection in hearts}) == 1


async def test_a_connection_that_nobody_uses_is_closed(site: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "KEPT_SECONDS", 0.05)
    kept = await in_database(used)
    await until(lambda: kept.connection is None)


async def test_none_is_left_when_a_sites_test_has_drained(site: None) -> None:
    kept = [await in_database(used), await promptly(used)]
    await sync_to_async(drain)()
    assert [connection.connection for connection in kept] == [None, None]
    assert (await in_database(used)).connection is not None


async def test_one_that_something_went_wrong_with_is_not_used_again(site: None) -> None:
    seen: list[Any] = []

    def fails() -> None:
        connection = used()
        seen.append(connection.connection)
        with connection.cursor() as cursor:
            cursor.execute("SELECT nothing FROM nowhere")

    for _ in range(8):
        with pytest.raises(DatabaseError):
            await in_database(fails)
    assert len({id(connection) for connection in seen}) == 8


async def test_one_of_a_pool_goes_back_at_once(site: None, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = await promptly(used)
    with monkeypatch.context() as patched:
        patched.setitem(kept.settings_dict["OPTIONS"], "pool", True)
        await promptly(used)
    assert kept.connection is None
