"""What ends an answer that its provider does not end, and what its readers are told."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
import pytest

from durable_chat import checks
from durable_chat.chunks import Chunk, is_terminal
from durable_chat.exceptions import FAILED, ProviderError
from durable_chat.messages import Prompt
from durable_chat.models import Run
from durable_chat.runs import ends, line, pump
from tests.conftest import Chatter, the_run
from tests.faults.people import until

USAGE = {"inputTokens": 3, "outputTokens": 5}

closed: list[str] = []  # the runs whose provider has been closed
began: list[str] = []  # the conversations in which an answer has been begun
going = threading.Event()  # what the stubborn ones wait for


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    closed.clear()
    began.clear()
    going.clear()
    yield
    going.set()


async def endless(prompt: Prompt) -> AsyncIterator[str | Chunk]:
    yield {"type": "RUN_FINISHED", "usage": USAGE}
    try:
        while True:
            yield "and "
            await asyncio.sleep(0.005)
    finally:
        closed.append(prompt.run_id)


async def silent(prompt: Prompt) -> AsyncIterator[str]:
    yield "Well. "
    try:
        await asyncio.Event().wait()
    finally:
        closed.append(prompt.run_id)


async def _not_to_be_cancelled() -> None:
    while not going.is_set():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            continue


async def stubborn(prompt: Prompt) -> AsyncIterator[str]:
    yield "Never. "
    await _not_to_be_cancelled()
    yield "Too late. "


async def clinging(prompt: Prompt) -> AsyncIterator[str]:
    try:
        while True:
            yield "Yes. "
            await asyncio.sleep(0.005)
    finally:
        await _not_to_be_cancelled()


async def deaf(prompt: Prompt) -> AsyncIterator[str]:
    while not going.is_set():
        yield "On. "
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            continue


async def polite(prompt: Prompt) -> AsyncIterator[str]:
    yield "Well. "
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        closed.append(prompt.run_id)  # and ends as if it had said all


async def broken(prompt: Prompt) -> AsyncIterator[str]:
    yield "So "
    raise ValueError("sk-secret")


async def frank(prompt: Prompt) -> AsyncIterator[str]:
    yield "So "
    raise ProviderError("The model is on holiday.")


async def gated(prompt: Prompt) -> AsyncIterator[str]:
    began.append(prompt.conversation_id)
    yield "Here. "
    await until(going.is_set)


def site(settings: Any, provider: Any, **limits: Any) -> None:
    backend = f"{__name__}.{provider.__name__}"
    settings.DURABLE_CHAT = {"PROVIDER": {"BACKEND": backend}, **limits}


async def _said(chatter: Chatter) -> bool:
    """Whether the provider has."""
    return (await chatter.chunks())[-1]["type"] == "TEXT_MESSAGE_CONTENT"


async def ended(chatter: Chatter) -> tuple[Run, Chunk]:
    """The run that a send began, and the one chunk that ended it."""
    assert (await chatter.send("Go on")).status_code == 202
    await chatter.idle()
    run = await the_run(chatter.id)
    chunks = await chatter.chunks()
    terminal = chunks.pop()
    assert is_terminal(terminal, run.pk)
    assert not any(is_terminal(chunk, run.pk) for chunk in chunks)
    return run, terminal


@pytest.mark.parametrize(
    ("provider", "limit", "end"),
    [
        (endless, {"RUN_SECONDS": 0.2}, ends.SLOW),
        (silent, {"SILENCE_SECONDS": 0.2}, ends.SILENT),
        (polite, {"SILENCE_SECONDS": 0.2}, ends.SILENT),
        (endless, {"ANSWER_BYTES": 2000}, ends.LONG),
    ],
)
async def test_a_limit_ends_the_answer_and_keeps_what_there_is(
    chatter: Chatter, settings: Any, provider: Any, limit: dict[str, float], end: ends.End
) -> None:
    site(settings, provider, **limit)
    run, terminal = await ended(chatter)
    assert (terminal["type"], terminal["code"], terminal["message"]) == ("RUN_ERROR", end.code, end.text)
    assert (run.state, run.notice, run.error) == (Run.State.FAILED, end.text, end.error)
    assert closed == [run.pk]
    (_, asked), (role, text) = await chatter.texts()
    assert (asked, role) == ("Go on", "assistant")
    assert text.startswith(("and and", "Well. "))
    settings.DURABLE_CHAT = {}
    await chatter.send("words=2")
    await chatter.idle()
    assert (await chatter.texts())[-1] == ("assistant", "w0 w1 ")


async def test_an_answer_within_its_size_is_whole(chatter: Chatter, settings: Any) -> None:
    settings.DURABLE_CHAT = {"ANSWER_BYTES": 1_000_000}
    await chatter.send("words=100")
    await chatter.idle()
    assert (await the_run(chatter.id)).state == Run.State.DONE


async def test_one_item_too_many_is_not_written(chatter: Chatter, settings: Any) -> None:
    settings.DURABLE_CHAT = {"ANSWER_BYTES": 400}
    await chatter.send("words=1000")
    await chatter.idle()
    answer = f"answer-{(await the_run(chatter.id)).pk}"
    said = [chunk for chunk in await chatter.chunks() if chunk.get("messageId") == answer]
    assert 200 < sum(len(orjson.dumps(chunk)) for chunk in said if "delta" in chunk) <= 400


@pytest.mark.parametrize("provider", [stubborn, clinging, deaf])
async def test_a_provider_that_does_not_let_itself_be_closed_holds_nobody_up(
    chatter: Chatter, settings: Any, monkeypatch: pytest.MonkeyPatch, provider: Any
) -> None:
    monkeypatch.setattr(pump, "CLOSE_SECONDS", 0.05)
    site(settings, provider, RUN_SECONDS=0.1)
    run, terminal = await ended(chatter)
    assert terminal["code"] == "time_limit"
    assert run.state == Run.State.FAILED
    before = await chatter.chunks()
    going.set()
    settings.DURABLE_CHAT = {}
    await chatter.send("words=1")
    await chatter.idle()
    assert (await chatter.chunks())[: len(before)] == before
    assert "Too late" not in str(await chatter.texts())


@pytest.mark.parametrize("how", ["limit", "stop"])
async def test_usage_is_recorded_whatever_the_end_was(chatter: Chatter, settings: Any, how: str) -> None:
    site(settings, endless, **({"RUN_SECONDS": 0.1} if how == "limit" else {}))
    await chatter.send("Go on")
    if how == "stop":
        await until(lambda: _said(chatter))
        assert (await chatter.post(f"/api/chat/{chatter.id}/stop", {})).status_code == 202
    await chatter.idle()
    assert (await the_run(chatter.id)).usage == USAGE
    assert (await chatter.chunks())[-1]["usage"] == USAGE


# --- ON_ERROR --------------------------------------------------------------------------------------------


def named(error: Exception, prompt: Prompt) -> str:
    return f"{type(error).__name__} in {prompt.conversation_id}"


async def awaited(error: Exception, prompt: Prompt) -> str:
    await asyncio.sleep(0)
    return f"awaited {named(error, prompt)}"


def failing(error: Exception, prompt: Prompt) -> str:
    raise error


def mute(error: Exception, prompt: Prompt) -> str:
    return " "


async def slow(error: Exception, prompt: Prompt) -> str:
    await asyncio.Event().wait()
    return "late"


def surrogate(error: Exception, prompt: Prompt) -> str:
    return "half \ud83d"


@pytest.mark.parametrize(
    ("tell", "text"),
    [
        (named, "ValueError in {id}"),
        (awaited, "awaited ValueError in {id}"),
        (failing, FAILED),
        (mute, FAILED),
        (slow, FAILED),
        (surrogate, "half \ufffd"),
    ],
)
async def test_on_error_says_what_readers_are_told(
    chatter: Chatter, settings: Any, monkeypatch: pytest.MonkeyPatch, tell: Any, text: str
) -> None:
    monkeypatch.setattr(ends, "ON_ERROR_SECONDS", 0.5)
    site(settings, broken, ON_ERROR=f"{__name__}.{tell.__name__}")
    run, terminal = await ended(chatter)
    assert terminal["message"] == run.notice == text.format(id=chatter.id)
    assert terminal["code"] == "provider_failed"
    assert "ValueError" in run.error
    assert "sk-secret" not in f"{run.error}{run.notice}{await chatter.chunks()}"


async def test_without_it_only_the_sentence_of_a_provider_error_is_shown(
    chatter: Chatter, settings: Any
) -> None:
    site(settings, frank)
    assert (await ended(chatter))[1]["message"] == "The model is on holiday."


@pytest.mark.parametrize("path", ["nowhere.at_all", "durable_chat.chunks.plain", "durable_chat.conf.NAME"])
def test_check_names_an_on_error_that_cannot_be_called(settings: Any, path: str) -> None:
    settings.DURABLE_CHAT = {"ON_ERROR": path}
    (error,) = checks.check_settings()
    assert "ON_ERROR" in error.msg


# --- MAX_RUNS --------------------------------------------------------------------------------------------


async def begun(chatters: list[Chatter]) -> list[bool]:
    """Which answers have begun to be written."""
    return [await _said(chatter) for chatter in chatters]


async def test_further_runs_wait_in_line_and_come_in_turn(chatter: Chatter, settings: Any) -> None:
    site(settings, gated, MAX_RUNS=1)
    chatters = [chatter]
    for _ in range(3):
        chatters.append(Chatter())
        await chatters[-1].begin()
    for each in chatters:
        assert (await each.send("Go on")).status_code == 202
        assert (await each.chunks())[-1]["type"] in ("RUN_STARTED", "TEXT_MESSAGE_CONTENT")
    await until(lambda: _said(chatter))
    assert await begun(chatters) == [True, False, False, False]
    assert (await chatters[1].post(f"/api/chat/{chatters[1].id}/stop", {})).status_code == 202

    async def stopped() -> bool:
        return (await the_run(chatters[1].id)).state == Run.State.STOPPED

    await until(stopped)
    assert await begun(chatters) == [True, False, False, False]
    going.set()
    await chatter.idle()
    assert began == [chatters[place].id for place in (0, 2, 3)]


async def test_who_gives_up_in_line_leaves_its_place_to_the_next() -> None:
    places, never, came = line.Line(1), asyncio.get_running_loop().create_future(), []

    async def come(name: str, unless: "asyncio.Future[None]") -> None:
        async with places.place(unless=unless):
            came.append(name)

    gone = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group, places.place(unless=never):
        for name, unless in (("b", gone), ("c", never), ("d", never)):
            group.create_task(come(name, unless))
        await asyncio.sleep(0)  # they stand in line
        gone.set_result(None)
        await until(lambda: came)
        assert came == ["b"]
    assert came == ["b", "c", "d"]
