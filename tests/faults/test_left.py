"""Readers who leave without a word, while there is something to tell them: nobody's failure."""

import asyncio
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.faults.conftest import Serve
from tests.faults.people import Person, asked, until
from tests.faults.test_shutdown import socket

READERS = 20


@pytest.mark.parametrize("kind", ["uvicorn", "daphne"])
async def test_no_log_calls_it_an_error(serve: Serve, kind: Any) -> None:
    server = serve(kind=kind)
    async with Person(server.base) as person:
        conversation, _ = await asked(person, "words=300 delay=5")

        async def by_socket() -> None:
            async with socket(person, conversation) as connection:
                await connection.recv()
                connection.transport.abort()

        async def by_events() -> None:
            query = {"id": conversation, "offset": "-1", "live": "sse"}
            with suppress(httpx.TransportError):
                async with person.http.stream("GET", "/api/chat-stream", params=query) as response:
                    await anext(response.aiter_raw())

        await asyncio.gather(*(leave() for leave in [by_socket, by_events] * READERS))
        await person.idle(conversation)
        await until(lambda: person.http.get("/"))
    assert server.end()
    log = server.log.read_text()
    assert "Traceback" not in log, log
    assert "failed" not in log, log
