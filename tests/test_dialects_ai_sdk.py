"""The AI SDK: a run as UIMessageChunks, and messages as its UIMessages."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_chat import chunks
from durable_chat.chunks import Chunk
from durable_chat.dialects import AISDK, Item
from durable_chat.messages import Fold, Message, echo, fold
from tests.test_messages import ARGS, END, RESULT, START, junk_chunks, said, thought

STARTED = chunks.run_started("c", "r", message_id="m")
FINISHED = chunks.run_finished("c", "r")
OPENING: list[Item] = [{"type": "start", "messageId": "m"}, {"type": "start-step"}]
CLOSING: list[Item] = [{"type": "finish-step"}, {"type": "finish", "finishReason": "stop"}]
NEXT_STEP: list[Item] = [{"type": "finish-step"}, {"type": "start-step"}]
CALLED: list[Item] = [
    {"type": "tool-input-start", "toolCallId": "t", "toolName": "weather"},
    {"type": "tool-input-delta", "toolCallId": "t", "inputTextDelta": '{"city"'},
    {"type": "tool-input-delta", "toolCallId": "t", "inputTextDelta": ':"Berlin"}'},
    {"type": "tool-input-available", "toolCallId": "t", "toolName": "weather", "input": {"city": "Berlin"}},
]
OUTPUT: Item = {"type": "tool-output-available", "toolCallId": "t", "output": {"celsius": 21}}


def items(*heard: Chunk, run_id: str = "r") -> list[Item]:
    transcoder = AISDK().transcoder(run_id)
    return [item for chunk in heard for item in transcoder.feed(chunk)]


def within(*heard: Chunk) -> list[Item]:
    """The items between a run's opening and its closing."""
    given_ = items(STARTED, *heard, FINISHED)
    assert given_[:2] == OPENING
    assert given_[-2:] == CLOSING
    return given_[2:-2]


def part(kind: str, part_id: str, *deltas: str) -> list[Item]:
    told = [{"type": f"{kind}-delta", "id": part_id, "delta": delta} for delta in deltas]
    return [{"type": f"{kind}-start", "id": part_id}, *told, {"type": f"{kind}-end", "id": part_id}]


# --- a run -------------------------------------------------------------------------------------------------


def test_text_opens_with_its_first_piece_and_keeps_its_part() -> None:
    assert within(*said("a", "", "b"), *said("c")) == part("text", "m-1", "a", "b", "c")
    assert within(*said()) == []


def test_messages_of_one_run_are_parts_of_one_message() -> None:
    assert within(*said("a"), *said("b", id="m2"), *said("c")) == [
        *part("text", "m-1", "a"),
        *part("text", "m2-2", "b"),
        *part("text", "m-3", "c"),
    ]


def test_thoughts_come_before_the_text_that_was_only_started() -> None:
    assert within(chunks.text_start("m"), *thought("hm"), *said("a")) == [
        *part("reasoning", "think-1", "hm"),
        *part("text", "m-2", "a"),
    ]


def test_after_a_tools_answer_the_next_step_begins() -> None:
    heard = [*said("a"), START, *ARGS, END, RESULT, *thought("hm"), *said("b")]
    assert within(*heard) == [
        *part("text", "m-1", "a"),
        *CALLED,
        OUTPUT,
        *NEXT_STEP,
        *part("reasoning", "think-3", "hm"),
        *part("text", "m-4", "b"),
    ]


def test_a_text_that_an_answer_interrupts_goes_on_in_the_next_step() -> None:
    pieces = [chunks.text_content("m", "a"), RESULT, chunks.text_content("m", "b")]
    assert within(START, *ARGS, END, *pieces) == [
        *CALLED,
        *part("text", "m-2", "a"),
        OUTPUT,
        *NEXT_STEP,
        *part("text", "m-3", "b"),
    ]


def test_a_step_lasts_as_long_as_a_call_of_it_is_open() -> None:
    other = chunks.tool_call_start("t2", "weather")
    heard = within(START, *ARGS, END, other, RESULT, *said("a"), chunks.tool_call_end("t2"), *thought("hm"))
    kinds = [item["type"] for item in heard]
    assert kinds.index("text-start") < kinds.index("finish-step") < kinds.index("reasoning-start")


@pytest.mark.parametrize(
    ("heard", "told"),
    [
        ([START, END], [CALLED[0], CALLED[3] | {"input": {}}]),
        ([START, ARGS[0], END], [*CALLED[:2], CALLED[3] | {"input": '{"city"'}]),
        ([START, chunks.tool_call_end("t", input={"a": 1})], [CALLED[0], CALLED[3] | {"input": {"a": 1}}]),
        ([START, *ARGS, RESULT, END], [*CALLED, OUTPUT]),
        ([START, *ARGS, END, *ARGS, START, END], CALLED),
        ([*ARGS, END, RESULT], []),
        (
            [START, *ARGS, END, chunks.tool_call_result("t", "t", {"error": "no"}, failed=True)],
            [*CALLED, {"type": "tool-output-error", "toolCallId": "t", "errorText": "no"}],
        ),
        (
            [START, *ARGS, END, chunks.tool_call_result("t", "t", "sunny")],
            [*CALLED, OUTPUT | {"output": "sunny"}],
        ),
    ],
)
def test_a_tool_call_as_it_is_made(heard: list[Chunk], told: list[Item]) -> None:
    assert within(*heard) == told


def test_other_runs_users_and_snapshots_are_passed_over() -> None:
    user = Message("u", "user", ({"type": "text", "content": "hello"},))
    other = [chunks.run_started("c", "other"), *said("x"), chunks.run_finished("c", "other")]
    heard = [*other, *echo(user), STARTED, *echo(user), chunks.messages_snapshot([]), FINISHED, *other]
    assert items(*heard) == [*OPENING, *CLOSING]


@pytest.mark.parametrize(
    ("terminal", "told"),
    [
        (chunks.run_finished("c", "r", finish_reason="length"), {"type": "finish", "finishReason": "length"}),
        (
            chunks.run_finished("c", "r", finish_reason="content_filter"),
            {"type": "finish", "finishReason": "content-filter"},
        ),
        (
            chunks.run_finished("c", "r", finish_reason="tool_calls"),
            {"type": "finish", "finishReason": "tool-calls"},
        ),
        (chunks.run_finished("c", "r", finish_reason=None), {"type": "finish"}),
        (
            chunks.run_error("It failed.", thread_id="c", run_id="r", code="failed"),
            {"type": "error", "errorText": "It failed."},
        ),
        (
            chunks.run_error("All failed.", thread_id="c", run_id=None, code="failed"),
            {"type": "error", "errorText": "All failed."},
        ),
        (chunks.run_error("Stopped.", thread_id="c", run_id="r", code="stopped"), {"type": "abort"}),
    ],
)
def test_every_end_of_a_run_closes_what_is_open(terminal: Chunk, told: Item) -> None:
    heard = items(STARTED, chunks.text_content("m", "a"), terminal)
    assert heard == [*OPENING, *part("text", "m-1", "a"), {"type": "finish-step"}, told]


def test_a_run_starts_once() -> None:
    assert items(STARTED, STARTED, FINISHED) == [*OPENING, *CLOSING]
    unnamed = chunks.run_started("c", "r")
    assert items(unnamed, FINISHED) == [{"type": "start"}, {"type": "start-step"}, *CLOSING]


def test_a_run_that_ends_before_it_started_ends() -> None:
    failed = chunks.run_error("It failed.", thread_id="c", run_id="r", code="failed")
    assert items(failed, STARTED) == [{"type": "error", "errorText": "It failed."}]


def test_a_repair_of_older_runs_does_not_end_one_that_has_not_begun() -> None:
    repair = chunks.run_error("All failed.", thread_id="c", run_id=None, code="failed")
    assert items(repair, STARTED, FINISHED) == [*OPENING, *CLOSING]


def refused(told: list[Item]) -> str | None:
    """Why the AI SDK's reader would throw, if it would: its rules, from `processUIMessageStream`."""
    opened: set[tuple[str, str]] = set()
    tools: dict[str, str] = {}
    for item in told:
        kind, _, verb = item["type"].rpartition("-")
        if kind in ("text", "reasoning"):
            if verb == "start":
                opened.add((kind, item["id"]))
            elif (kind, item["id"]) not in opened:
                return f"{item} for a part that is not open"
            elif verb == "end":
                opened.remove((kind, item["id"]))
        elif item["type"] == "finish-step":
            opened.clear()
        elif kind.startswith("tool"):
            if kind == "tool-input" and verb == "start":
                tools[item["toolCallId"]] = "input"
            elif item["toolCallId"] not in tools:
                return f"{item} for a call that is not known"
            elif verb == "delta" and tools[item["toolCallId"]] != "input":
                return f"{item} for a call whose input is complete"
            elif verb == "available":
                tools[item["toolCallId"]] = "available"
    return None


@given(st.lists(junk_chunks, max_size=30))
def test_whatever_is_in_the_stream_the_reader_is_told_nothing_that_it_refuses(heard: list[Chunk]) -> None:
    told = items(STARTED, *heard, FINISHED)
    assert refused(told) is None
    assert told == items(STARTED, *heard, FINISHED)
    assert [item["type"] for item in told].count("start") == 1
    assert told[-1]["type"] in ("finish", "error", "abort")


# --- messages ----------------------------------------------------------------------------------------------


def hydrated(*heard: Chunk) -> list[dict[str, Any]]:
    """The parts of the one message that these chunks make, as the AI SDK's."""
    (message,) = AISDK().messages(fold(heard))
    assert (message["id"], message["role"]) == ("m", "assistant")
    return list(message["parts"])


STEP = {"type": "step-start"}
TOOL = {"type": "tool-weather", "toolCallId": "t"}


def test_an_answer_is_divided_into_steps() -> None:
    assert hydrated(*said("a"), *thought("hm"), START, *ARGS, END, RESULT, *said("b")) == [
        STEP,
        {"type": "text", "text": "a", "state": "done"},
        {"type": "reasoning", "text": "hm", "state": "done"},
        TOOL | {"state": "output-available", "input": {"city": "Berlin"}, "output": {"celsius": 21}},
        STEP,
        {"type": "text", "text": "b", "state": "done"},
    ]


@pytest.mark.parametrize(
    ("heard", "part_"),
    [
        ([START], TOOL | {"state": "input-streaming", "input": {}}),
        ([START, *ARGS], TOOL | {"state": "input-streaming", "input": {"city": "Berlin"}}),
        ([START, *ARGS, END], TOOL | {"state": "input-available", "input": {"city": "Berlin"}}),
        ([START, ARGS[0], END], TOOL | {"state": "input-available", "input": '{"city"'}),
        (
            [START, END, chunks.tool_call_result("t", "t", {"error": "no"}, failed=True)],
            TOOL | {"state": "output-error", "input": {}, "errorText": "no"},
        ),
    ],
)
def test_a_tool_call_in_each_of_its_states(heard: list[Chunk], part_: dict[str, Any]) -> None:
    assert hydrated(*heard) == [STEP, part_]


def test_the_other_parts_and_roles() -> None:
    system = Message("s", "system", ({"type": "text", "content": "be kind"},), {"tanstack": {"model": "x"}})
    source = {"type": "url", "value": "https://example.com/a"}
    answer = Message("m", "assistant", ({"type": "document", "source": source}, {"type": "unknown"}))
    assert AISDK().messages([system, answer]) == [
        {"id": "s", "role": "system", "parts": [{"type": "text", "text": "be kind", "state": "done"}]},
        {
            "id": "m",
            "role": "assistant",
            "parts": [STEP, {"type": "file", "mediaType": "application/*", "url": "https://example.com/a"}],
        },
    ]


@given(st.lists(junk_chunks, max_size=20))
def test_whatever_was_said_can_be_shown(heard: list[Chunk]) -> None:
    folding = Fold()
    for chunk in heard:
        folding.apply(chunk)
    shown = AISDK().messages(folding.messages)
    assert [message["id"] for message in shown] == [message.id for message in folding.messages]
