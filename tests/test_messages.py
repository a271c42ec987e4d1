"""The fold: what a stream's chunks say, and where it may be cut."""

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_chat import chunks
from durable_chat.chunks import Chunk
from durable_chat.messages import Fold, Message, echo, fold

HELLO = Message("u", "user", ({"type": "text", "content": "hello"},))
STARTED = chunks.run_started("c", "r", message_id="m")
FINISHED = chunks.run_finished("c", "r")
START = chunks.tool_call_start("t", "weather", parent_message_id="m")
ARGS = [chunks.tool_call_args("t", '{"city"'), chunks.tool_call_args("t", ':"Berlin"}')]
END = chunks.tool_call_end("t")
RESULT = chunks.tool_call_result("t", "t-result", {"celsius": 21})
CALLED = {"type": "tool-call", "id": "t", "name": "weather", "arguments": '{"city":"Berlin"}'}
ANSWERED = CALLED | {"input": {"city": "Berlin"}, "output": {"celsius": 21}, "state": "complete"}
ANSWER = {"type": "tool-result", "toolCallId": "t", "content": '{"celsius":21}', "state": "complete"}


def said(*pieces: str, id: str = "m") -> list[Chunk]:
    return [chunks.text_start(id), *(chunks.text_content(id, piece) for piece in pieces), chunks.text_end(id)]


def thought(*pieces: str, id: str = "think") -> list[Chunk]:
    inner = [chunks.reasoning_message_content(id, piece) for piece in pieces]
    opening = [chunks.reasoning_start(id), chunks.reasoning_message_start(id)]
    return [*opening, *inner, chunks.reasoning_message_end(id), chunks.reasoning_end(id)]


def parts(*folded: Chunk) -> list[dict[str, Any]]:
    """The parts of the one message of an assistant that these chunks make."""
    (message,) = fold(folded)
    assert message.role == "assistant"
    return list(message.parts)


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "content": content}


def thinking(content: str, step: str = "think") -> dict[str, Any]:
    return {"type": "thinking", "content": content, "stepId": step}


# --- what chunks say ---------------------------------------------------------------------------------------


def test_a_run_after_an_echo_makes_two_messages() -> None:
    folded = fold([*echo(HELLO), STARTED, *said("Hi ", "there"), FINISHED])
    assert [(message.id, message.role, message.text()) for message in folded] == [
        ("u", "user", "hello"),
        ("m", "assistant", "Hi there"),
    ]


def test_text_goes_on_in_its_part_until_something_else_comes() -> None:
    assert parts(*said("A"), chunks.custom("x"), *said("B"), *thought("hm"), *said("C")) == [
        text("AB"),
        thinking("hm"),
        text("C"),
    ]


def test_a_message_that_was_started_stays_empty_until_something_is_said() -> None:
    assert parts(chunks.text_start("m"), chunks.text_content("m", "")) == []


def test_a_text_without_its_beginning_is_an_assistants() -> None:
    assert parts(chunks.text_content("m", "late")) == [text("late")]


@pytest.mark.parametrize(
    ("role", "kept"),
    [("user", "user"), ("system", "system"), ("tool", "assistant"), ("developer", "assistant")],
)
def test_roles_that_no_client_shows_are_an_assistants(role: str, kept: str) -> None:
    assert fold([chunks.text_start("m", role)])[0].role == kept


def test_thoughts_belong_to_the_message_being_written() -> None:
    assert parts(chunks.text_start("m"), *thought("a", "b"), *said("C")) == [thinking("ab"), text("C")]


def test_thoughts_and_calls_are_never_a_users() -> None:
    asked, answer = fold([*echo(HELLO), *thought("hm"), chunks.tool_call_start("t", "weather")])
    assert asked.parts == HELLO.parts
    assert [part["type"] for part in answer.parts] == ["thinking", "tool-call"]
    assert answer.role == "assistant"


def test_a_message_has_one_part_of_thoughts_unless_steps_divide_it() -> None:
    assert parts(*said("A"), *thought("1", id="x"), START, *thought("2", id="y"))[1] == thinking("12", "x")
    first = [chunks.step_started("one"), *thought("1", id="x"), chunks.step_finished("one")]
    second = [chunks.step_started("two"), *thought("2", id="y"), chunks.step_finished("two")]
    assert parts(*said("A"), *first, *second) == [text("A"), thinking("1", "one"), thinking("2", "two")]


def test_a_signature_is_kept_with_the_thought_or_the_call_that_it_signs() -> None:
    signed = {"type": "REASONING_ENCRYPTED_VALUE", "entityId": "think", "encryptedValue": "s"}
    called = signed | {"subtype": "tool-call", "entityId": "t"}
    folded = parts(*said(), *thought("hm"), signed | {"subtype": "message"}, START, called)
    assert folded[0] == thinking("hm") | {"signature": "s"}
    assert folded[1]["metadata"] == {"thoughtSignature": "s"}


@pytest.mark.parametrize(
    ("heard", "part"),
    [
        ([START], CALLED | {"arguments": "", "state": "awaiting-input"}),
        ([START, ARGS[0]], CALLED | {"arguments": '{"city"', "state": "input-streaming"}),
        ([START, *ARGS, END], CALLED | {"input": {"city": "Berlin"}, "state": "input-complete"}),
        ([START, ARGS[0], END], CALLED | {"arguments": '{"city"', "state": "input-complete"}),
        (
            [START, chunks.tool_call_end("t", input={"city": "Berlin"})],
            CALLED | {"input": {"city": "Berlin"}, "state": "input-complete"},
        ),
        ([START, *ARGS, END, RESULT], ANSWERED),
        ([START, *ARGS, RESULT, END], ANSWERED),
        ([START, START, *ARGS, END, ARGS[0], END, RESULT], ANSWERED),
    ],
)
def test_a_tool_call_as_it_is_made(heard: list[Chunk], part: dict[str, Any]) -> None:
    assert parts(*heard)[0] == part


def test_a_result_stands_where_it_came_and_replaces_an_earlier_one() -> None:
    call = [START, *ARGS, END]
    assert parts(*call, RESULT, *said("So")) == [ANSWERED, ANSWER, text("So")]
    again = chunks.tool_call_result("t", "t-result", "no", failed=True)
    assert parts(*call, RESULT, *said("So"), again) == [
        ANSWERED | {"output": "no", "state": "error"},
        {"type": "tool-result", "toolCallId": "t", "content": "no", "state": "error", "error": "no"},
        text("So"),
    ]


def test_a_call_id_that_is_used_again_in_a_later_message_is_a_later_call() -> None:
    first = [chunks.text_start("m"), START, *ARGS, END, RESULT]
    second = [
        chunks.text_start("m2"),
        chunks.tool_call_start("t", "weather"),
        chunks.tool_call_args("t", "{}"),
    ]
    before, after = fold([*first, *second, END, chunks.tool_call_result("t", "t2", "other")])
    assert list(before.parts) == [ANSWERED, ANSWER]
    assert after.parts[0]["output"] == "other"
    assert after.parts[0]["arguments"] == "{}"


def test_metadata_of_a_text_is_its_messages() -> None:
    one = chunks.text_start("m") | {"metadata": {"own": 1, "tanstack": {"model": "x"}}}
    two = chunks.text_content("m", "a") | {"metadata": {"tanstack": {"content": "a", "finish": "y"}}}
    assert fold([one, two])[0].metadata == {"own": 1, "tanstack": {"model": "x", "finish": "y"}}


def test_a_snapshot_replaces_all_and_nothing_stays_open() -> None:
    folding = Fold([HELLO])
    for chunk in [chunks.text_start("m"), START, chunks.messages_snapshot([HELLO.as_json()])]:
        folding.apply(chunk)
    assert folding.messages == (HELLO,)
    assert folding.closers("why") == []


def test_a_snapshot_may_hold_ag_uis_own_messages() -> None:
    function = {"name": "weather", "arguments": '{"city":"Berlin"}'}
    listed: list[dict[str, Any]] = [
        {"id": "u", "role": "user", "content": [{"type": "text", "text": "hello"}]},
        {"id": "d", "role": "developer", "content": "be kind"},
        {"id": "m", "role": "assistant", "content": "A", "toolCalls": [{"id": "t", "function": function}]},
        {"id": "t-result", "role": "tool", "toolCallId": "t", "content": '{"celsius":21}'},
    ]
    user, developer, answer = fold([chunks.messages_snapshot(listed)])
    assert user == HELLO
    assert (developer.role, developer.text()) == ("system", "be kind")
    assert list(answer.parts) == [text("A"), ANSWERED, ANSWER]


# --- closing, cutting, and junk ----------------------------------------------------------------------------


def test_closers_end_what_is_open_innermost_first_and_answer_what_waits() -> None:
    folding = Fold()
    waiting = [START, *ARGS, END]
    for chunk in [
        chunks.text_start("m"),
        *waiting,
        chunks.reasoning_start("x"),
        chunks.tool_call_start("t2", "f"),
    ]:
        folding.apply(chunk)
    closers = folding.closers("Stopped.")
    assert [(chunk["type"], chunk.get("toolCallId") or chunk["messageId"]) for chunk in closers] == [
        ("TOOL_CALL_END", "t2"),
        ("TOOL_CALL_RESULT", "t2"),
        ("REASONING_END", "x"),
        ("TOOL_CALL_RESULT", "t"),
        ("TEXT_MESSAGE_END", "m"),
    ]
    for chunk in closers:
        folding.apply(chunk)
    assert [part.get("error") for part in folding.messages[0].parts if part["type"] == "tool-result"] == [
        "Stopped.",
        "Stopped.",
    ]


junk_ids = st.sampled_from(["a", "b", "c", ""]) | st.integers() | st.none()
junk_text = st.sampled_from(["x", "", "{}", '{"k":1}', "[", "null"]) | st.none() | st.integers()
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
metadata = st.none() | st.dictionaries(st.sampled_from(["own", "tanstack"]), junk, max_size=2) | junk
failed = st.just({"tanstack": {"state": "output-error"}})
ui_parts = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "thinking", "tool-call", "tool-result", "image"]) | junk},
        optional={"content": junk_text, "id": junk_ids, "toolCallId": junk_ids, "arguments": junk_text},
    )
    | junk,
    max_size=3,
)
ui_messages = st.fixed_dictionaries(
    {"id": junk_ids, "role": st.sampled_from(["user", "assistant", "system", "tool", "developer"]) | junk},
    optional={"parts": ui_parts | junk, "content": junk, "toolCalls": junk, "toolCallId": junk_ids},
)
TYPES = [
    *("TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END", "STEP_STARTED", "STEP_FINISHED"),
    *("REASONING_START", "REASONING_MESSAGE_START", "REASONING_MESSAGE_CONTENT", "REASONING_MESSAGE_END"),
    *("REASONING_END", "REASONING_ENCRYPTED_VALUE", "TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END"),
    *(
        "TOOL_CALL_RESULT",
        "MESSAGES_SNAPSHOT",
        "CUSTOM",
        "RUN_STARTED",
        "RUN_FINISHED",
        "RUN_ERROR",
        "NONSENSE",
    ),
]
junk_chunks = st.fixed_dictionaries(
    {"type": st.sampled_from(TYPES)},
    optional={
        "messageId": junk_ids,
        "role": st.sampled_from(["assistant", "user", "tool"]) | junk,
        "delta": junk_text,
        "content": junk_text | junk,
        "toolCallId": junk_ids,
        "toolCallName": junk_ids,
        "parentMessageId": junk_ids,
        "stepName": junk_ids,
        "subtype": st.sampled_from(["message", "tool-call"]),
        "entityId": junk_ids,
        "encryptedValue": junk_text,
        "messages": st.lists(ui_messages | junk, max_size=3) | junk,
        "metadata": metadata | failed,
        "timestamp": junk | st.floats(),
    },
)


@given(st.lists(junk_chunks | junk, max_size=20))
def test_nothing_in_a_stream_makes_the_fold_fail(heard: list[Any]) -> None:
    before = copy.deepcopy(heard)
    folded = fold(heard)
    assert heard == before or "nan" in repr(before)
    assert all(message.as_json()["parts"] == list(message.parts) for message in folded)
    assert all(isinstance(message.text(), str) for message in folded)


@given(st.lists(junk_chunks, max_size=20))
def test_closers_leave_nothing_open(heard: list[Chunk]) -> None:
    folding = Fold()
    for chunk in heard:
        folding.apply(chunk)
    for chunk in folding.closers("why"):
        folding.apply(chunk)
    assert folding.closers("why") == []


@given(st.lists(junk_chunks, max_size=15), st.lists(junk_chunks, max_size=10))
def test_a_fold_may_be_cut_wherever_nothing_is_open(before: list[Chunk], after: list[Chunk]) -> None:
    folding = Fold()
    for chunk in before:
        folding.apply(chunk)
    closers = folding.closers("why")
    cut = fold([*before, *closers])
    assert fold([*before, *closers, *after]) == fold(after, cut)


@given(st.lists(junk_chunks, max_size=12), st.lists(junk_chunks, max_size=6))
def test_messages_once_given_are_not_changed(before: list[Chunk], after: list[Chunk]) -> None:
    folding = Fold()
    for chunk in before:
        folding.apply(chunk)
    given_ = folding.messages
    kept = copy.deepcopy(given_)
    for chunk in after:
        folding.apply(chunk)
    fold(after, given_)
    assert given_ == kept


@given(st.lists(st.text(max_size=4), max_size=30))
def test_a_text_is_its_pieces_joined(pieces: list[str]) -> None:
    assert fold(said(*pieces))[0].text() == "".join(pieces)


# --- messages ----------------------------------------------------------------------------------------------


def test_a_message_as_json_is_tanstacks() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert HELLO.as_json() == {"id": "u", "role": "user", "parts": [text("hello")]}
    assert Message("u", "user", (), {"a": 1}, at).as_json() == {
        "id": "u",
        "role": "user",
        "parts": [],
        "metadata": {"a": 1},
        "createdAt": "2026-01-02T03:04:05+00:00",
    }


def test_an_echo_holds_the_text_and_nothing_else() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    picture = {"type": "image", "source": {"type": "url", "value": "https://example.com/a.png"}}
    told = {"model": "client", "timestamp": 1767323045000}
    assert echo(Message("u", "user", (text("a"), picture, text("b")), created_at=at)) == [
        {"type": "TEXT_MESSAGE_START", "messageId": "u", "role": "user"} | told,
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "u", "delta": "ab"} | told,
        {"type": "TEXT_MESSAGE_END", "messageId": "u"} | told,
    ]
    assert [chunk["type"] for chunk in echo(Message("u", "user", (picture,), created_at=at))] == [
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_END",
    ]


def test_an_echo_folds_into_the_message_that_it_echoes() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    sent = Message("u", "user", (text("hello"),), created_at=at)
    assert fold(echo(sent)) == (sent,)
    assert fold(echo(HELLO))[0].created_at is not None
