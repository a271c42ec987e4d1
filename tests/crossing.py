"""What only PostgreSQL does: writers that cross each other, sessions that end. test_postgres.py runs this."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from durable_chat.connections import in_database
from durable_chat.models import Run
from durable_chat.runs import queue
from durable_chat.runs.claim import Claim
from durable_chat.runs.queue import next_in_line
from tests.conftest import Chatter
from tests.test_connections import used
from tests.test_queue import admitted, released


async def test_a_stop_in_the_middle_of_its_turn_is_not_lost(
    chatter: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run.stop() takes no lock, so it may come between the look at a run and its beginning."""
    first = await admitted(chatter, "m-1")
    waiting = await admitted(chatter, "m-2")
    assert isinstance(first, Claim)
    await released(first)
    run = await Run.objects.aget(pk=waiting.run_id)
    real = queue.next_position

    def stopped_meanwhile(conversation: Any) -> int:
        with ThreadPoolExecutor(1) as elsewhere:
            elsewhere.submit(run.stop).result()
            elsewhere.submit(connections.close_all).result()
        return real(conversation)

    monkeypatch.setattr(queue, "next_position", stopped_meanwhile)
    claim = await in_database(next_in_line, chatter.id, holder="elsewhere", lease_seconds=30, hurried=False)
    assert claim is not None
    await run.arefresh_from_db()
    assert (run.state, run.stop_requested) == ("running", True)


async def test_a_session_that_ended_between_two_touches_is_nobodys_error(chatter: Chatter) -> None:
    kept = {(await in_database(used)).connection.info.backend_pid for _ in range(8)}

    def end() -> None:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pid, 5000) FROM unnest(%s) AS pid", [list(kept)])

    await sync_to_async(end)()
    for _ in range(8):
        assert await in_database(Run.objects.exists) is False
