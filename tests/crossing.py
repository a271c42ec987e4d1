"""Writers that cross each other, as they can on PostgreSQL alone: test_postgres.py runs this."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections

from durable_chat.connections import in_database
from durable_chat.models import Run
from durable_chat.runs import queue
from durable_chat.runs.claim import Claim
from durable_chat.runs.queue import next_in_line
from tests.conftest import Chatter
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
