"""One HTTP transport a loop, which ends with it."""

import asyncio
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from durable_chat.connections import http_transport
from durable_chat.streams.client.http import HTTPHandler
from durable_chat.streams.protocol.exchange import Request
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
