"""The site's PostgreSQL is restarted under a running server, or dies and comes back."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Literal

import pytest

from tests.faults.conftest import Serve
from tests.faults.evidence import rows, said, settled, words
from tests.faults.people import DurableReader, Person, SocketReader, asked, following, until
from tests.postgres import Cluster, cluster, why_no_cluster

AWAY_SECONDS = 3.0  # longer than the lease


@pytest.fixture
def database_server() -> Iterator[Cluster]:
    if missing := why_no_cluster():
        pytest.skip(missing)
    with cluster() as running:
        yield running


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_an_answer_outlives_its_database(
    serve: Serve, database_server: Cluster, mode: Literal["fast", "immediate"]
) -> None:
    server = serve(DATABASE_URL=database_server.url)
    async with Person(server.base) as person:
        conversation, run_id = await asked(person, "words=120 delay=50")
        readers = DurableReader(person, conversation), SocketReader(person, conversation)
        view = DurableReader(person, conversation, run=run_id)
        async with following(*readers, view):
            await until(lambda: all(words(10) in reader.text for reader in (*readers, view)))
            async with _away(database_server, mode):
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
async def _away(server: Cluster, mode: Literal["fast", "immediate"]) -> AsyncIterator[None]:
    """It is gone within, and for some seconds after."""
    await asyncio.to_thread(server.stop, mode)
    try:
        yield
        await asyncio.sleep(AWAY_SECONDS)
    finally:
        await asyncio.to_thread(server.start)
