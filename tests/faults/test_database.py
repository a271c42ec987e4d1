"""The site's PostgreSQL goes away under a running server, and comes back."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import psycopg
import pytest
from psycopg import sql

from tests.faults.conftest import Serve
from tests.faults.evidence import rows, said, settled, words
from tests.faults.people import DurableReader, Person, SocketReader, asked, following, until
from tests.streams.postgres import URL

pytestmark = pytest.mark.parametrize("database", ["postgres"], indirect=True)

AWAY_SECONDS = 3.0  # longer than the lease
_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"


async def test_an_answer_outlives_its_database(serve: Serve, database: Mapping[str, str]) -> None:
    server = serve()
    async with Person(server.base) as person:
        conversation, run_id = await asked(person, "words=200 delay=50")
        readers = DurableReader(person, conversation), SocketReader(person, conversation)
        view = DurableReader(person, conversation, run=run_id)
        async with following(*readers, view):
            await until(lambda: all(words(10) in reader.text for reader in (*readers, view)))
            async with _away(database["DATABASE_URL"]):
                refused = await person.http.get(f"/api/conversations/{conversation}")
                assert refused.status_code == 503
                assert set(refused.json()) == {"error"}
                assert "retry-after" in refused.headers
                sent = await person.send(conversation, "words=3", id="m-2")
                assert sent.status_code == 503, sent.text
            chunks = await settled(person, conversation, directory=server.directory)
            assert [row.state for row in rows(server.directory, conversation)] in (["done"], ["interrupted"])
            await view.arrives()
            assert view.text == said(chunks, run_id)
            assert (await person.send(conversation, "words=3", id="m-2")).status_code == 202
            chunks = await settled(person, conversation, directory=server.directory)
            for reader in readers:
                await reader.arrives(at=chunks)


@asynccontextmanager
async def _away(url: str) -> AsyncIterator[None]:
    """No session lives within, nor for some seconds after."""
    name = url.rpartition("/")[2]
    async with await psycopg.AsyncConnection.connect(URL, autocommit=True) as connection:
        allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        await connection.execute(allow.format(sql.Identifier(name), sql.Literal(False)))
        await connection.execute(_SESSIONS, [name])
        try:
            yield
            await asyncio.sleep(AWAY_SECONDS)
        finally:
            await connection.execute(allow.format(sql.Identifier(name), sql.Literal(True)))
