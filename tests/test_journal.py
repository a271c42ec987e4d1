"""What is seen of runs: one structured line for each change of state, one signal for each end."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from durable_chat import signals
from durable_chat.connections import in_database
from durable_chat.models import Conversation, Run
from durable_chat.runs.holder import holder
from durable_chat.runs.queue import withdraw
from tests.conftest import Chatter, the_run
from tests.test_recovery import doomed

Heard = list[tuple[str, str]]
BEGUN = ["claimed", "accepted", "running"]


@contextmanager
def listening() -> Iterator[Heard]:
    """(signal, state) of every run, as a host would hear of it."""
    heard: Heard = []
    receivers = {
        name: lambda sender, *, name=name, run_id, conversation_id, signal, state="": heard.append(
            (name, state)
        )
        for name in ("run_started", "run_finished", "run_failed")
    }
    for name, receiver in receivers.items():
        getattr(signals, name).connect(receiver)
    try:
        yield heard
    finally:
        for name, receiver in receivers.items():
            getattr(signals, name).disconnect(receiver)


def changes(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The states that were told of, each with all its ids and without a word of what was said."""
    records: list[Any] = [record for record in caplog.records if hasattr(record, "run")]
    for record in records:
        assert record.name.startswith("durable_chat.runs")
        assert record.holder == holder()
        assert record.epoch >= (0 if record.state in ("queued", "stopped") else 1)
        assert record.run in record.getMessage()
        assert record.conversation in record.getMessage()
        assert "words=" not in record.getMessage()
    return [record.state for record in records]


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="durable_chat.runs")


@pytest.mark.parametrize(
    ("how", "state", "signal"),
    [
        ("done", "done", "run_finished"),
        ("failed", "failed", "run_failed"),
        ("stopped", "stopped", "run_finished"),
    ],
)
async def test_a_run_is_seen_from_its_claim_to_its_end(
    chatter: Chatter, caplog: pytest.LogCaptureFixture, how: str, state: str, signal: str
) -> None:
    asked = {"done": "words=3", "failed": "an error, words: none", "stopped": "words=1000 delay=50"}[how]
    with listening() as heard:
        await chatter.send(asked)
        if how == "stopped":
            await chatter.post(f"/api/chat/{chatter.id}/stop", {})
        await chatter.idle()
    run = await the_run(chatter.id)
    told = changes(caplog)
    assert [each for each in told if each != "running"] == ["claimed", "accepted", "ending", state]
    assert how == "stopped" or told[:3] == BEGUN
    assert heard == [("run_started", ""), (signal, state)]
    assert {record.run for record in caplog.records if hasattr(record, "run")} == {run.pk}


@pytest.mark.parametrize(
    ("point", "state", "signal"),
    [("writing", "interrupted", "run_failed"), ("finished", "done", "run_finished")],
)
async def test_a_recovery_is_seen_once(
    chatter: Chatter, caplog: pytest.LogCaptureFixture, point: str, state: str, signal: str
) -> None:
    process = await doomed(chatter.id, point)
    await process.dies()
    with listening() as heard:
        await chatter.hydrate()
        await chatter.hydrate()
    assert changes(caplog) == ["taken over", state]
    assert heard == [(signal, state)]


async def test_a_run_that_loses_its_conversation_says_so(
    chatter: Chatter, caplog: pytest.LogCaptureFixture
) -> None:
    with listening() as heard:
        await chatter.send("words=1000 delay=50")
        await (await Conversation.objects.aget(pk=chatter.id)).adelete()
        await chatter.idle()
    assert changes(caplog)[-1] == "lost"
    assert heard in ([], [("run_started", "")])  # it was lost before its end, perhaps before that was told


async def test_the_sender_does_not_wait_for_receivers(chatter: Chatter) -> None:
    answered = threading.Event()

    def waits(**kwargs: Any) -> None:
        answered.wait()

    signals.run_started.connect(waits)
    try:
        assert (await chatter.send("words=2")).status_code == 202
    finally:
        answered.set()
        signals.run_started.disconnect(waits)
    await chatter.idle()
    assert (await the_run(chatter.id)).state == "done"


async def test_a_receiver_that_fails_ends_no_run(chatter: Chatter, caplog: pytest.LogCaptureFixture) -> None:
    def fails(**kwargs: Any) -> None:
        raise ValueError

    signals.run_started.connect(fails)
    try:
        await chatter.send("words=2")
        await chatter.idle()
    finally:
        signals.run_started.disconnect(fails)
    assert (await the_run(chatter.id)).state == "done"
    assert "test_a_receiver_that_fails_ends_no_run" in caplog.text


async def test_a_run_in_line_is_seen_too(
    chatter: Chatter, caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    settings.DURABLE_CHAT = {"WHEN_BUSY": "queue"}
    await chatter.send("words=1000 delay=50")
    for name in ("waits", "withdrawn"):
        await chatter.send("words=1", id=name)
    runs = {run.message.client_id: run.pk async for run in Run.objects.select_related("message")}
    await in_database(withdraw, chatter.id, "withdrawn")
    await chatter.post(f"/api/chat/{chatter.id}/stop", {})
    await chatter.idle()
    changes(caplog)
    told = [(record.run, record.state) for record in caplog.records if hasattr(record, "run")]
    seen = {name: [state for run, state in told if run == runs[name]] for name in ("waits", "withdrawn")}
    assert seen == {
        "waits": ["queued", *BEGUN, "ending", "done"],
        "withdrawn": ["queued", "stopped"],
    }
