"""What may enter a conversation's stream, and which chunks end a run."""

import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_chat import chunks
from durable_chat.chunks import BadChunk, Chunk, is_terminal, plain, sanitize

MADE: list[Chunk] = [
    chunks.text_start("m"),
    chunks.text_start("m", "user"),
    chunks.text_content("m", "hello"),
    chunks.text_content("m", ""),
    chunks.text_end("m"),
    chunks.reasoning_start("r"),
    chunks.reasoning_message_start("r"),
    chunks.reasoning_message_content("r", "hm"),
    chunks.reasoning_message_end("r"),
    chunks.reasoning_end("r"),
    chunks.step_started("s"),
    chunks.step_finished("s"),
    chunks.tool_call_start("t", "weather"),
    chunks.tool_call_start("t", "weather", parent_message_id="m"),
    chunks.tool_call_args("t", '{"a":'),
    chunks.tool_call_end("t"),
    chunks.tool_call_end("t", input={"a": 1}),
    chunks.tool_call_result("t", "t-result", "21 degrees"),
    chunks.tool_call_result("t", "t-result", {"error": "no"}, failed=True),
    chunks.custom("run.accepted"),
    chunks.custom("progress", {"percent": 50}),
    chunks.messages_snapshot([{"id": "m", "role": "user", "parts": []}]),
]


@pytest.mark.parametrize("chunk", MADE, ids=lambda chunk: chunk["type"])
def test_what_we_make_is_stored_as_it_is(chunk: Chunk) -> None:
    assert sanitize(chunk) == chunk


@pytest.mark.parametrize(
    ("given_", "stored"),
    [
        pytest.param(
            {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "b", "content": "ab", "model": "x"},
            chunks.text_content("m", "b"),
            id="the accumulated text is dropped",
        ),
        pytest.param(
            {"type": "TOOL_CALL_ARGS", "toolCallId": "t", "delta": "}", "args": "{}"},
            chunks.tool_call_args("t", "}"),
            id="the accumulated arguments are dropped",
        ),
        pytest.param(
            chunks.text_end("m") | {"rawEvent": {"headers": {"authorization": "Bearer key"}}},
            chunks.text_end("m"),
            id="the model service's own event is dropped",
        ),
        pytest.param(
            {"type": "TEXT_MESSAGE_START", "messageId": "m", "name": None, "timestamp": None},
            chunks.text_start("m"),
            id="the role has a default, and nothing is nothing",
        ),
        pytest.param(
            {"type": "TOOL_CALL_START", "toolCallId": "t", "toolName": "weather"},
            chunks.tool_call_start("t", "weather"),
            id="TanStack's adapters say toolName",
        ),
        pytest.param(
            {"type": "TOOL_CALL_END", "toolCallId": "t", "input": {"a": 1}},
            chunks.tool_call_end("t", input={"a": 1}),
            id="what is not AG-UI's moves to the metadata",
        ),
        pytest.param(
            chunks.text_end("m") | {"model": "x", "metadata": {"own": 1, "tanstack": {"model": "y"}}},
            chunks.text_end("m") | {"metadata": {"own": 1, "tanstack": {"model": "y"}}},
            id="metadata that is there already wins",
        ),
        pytest.param(
            {"type": "TOOL_CALL_RESULT", "toolCallId": "t", "content": {"a": [1]}},
            chunks.tool_call_result("t", "t", '{"a":[1]}'),
            id="a tool's value is sent as text",
        ),
        pytest.param(
            chunks.text_content("m", "a\ud800b \ud83d\ude00 \0"),
            chunks.text_content("m", "a\ufffdb \U0001f600 \ufffd"),
            id="surrogates and NUL",
        ),
        pytest.param(chunks.custom("x", (1, math.nan)), chunks.custom("x", [1, None]), id="plain JSON"),
        pytest.param(
            chunks.text_end("m") | {"timestamp": 1700000000000},
            chunks.text_end("m") | {"timestamp": 1700000000000},
            id="timestamps stay",
        ),
    ],
)
def test_what_a_provider_says_is_stored_in_the_streams_words(given_: Chunk, stored: Chunk) -> None:
    assert sanitize(given_) == stored


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        (None, "text or chunks"),
        (["a"], "text or chunks"),
        ({}, "not the type of a chunk"),
        ({"type": ["TEXT_MESSAGE_END"]}, "not the type of a chunk"),
        ({"type": "text-delta", "id": "1", "delta": "a"}, "not the type of a chunk"),
        (chunks.run_started("c", "r"), "written by the run itself"),
        (chunks.run_finished("c", "r"), "written by the run itself"),
        (chunks.run_error("no", thread_id="c", run_id="r", code="failed"), "written by the run itself"),
        ({"type": "TEXT_MESSAGE_CHUNK", "delta": "a"}, "TEXT_MESSAGE_START, _CONTENT and _END"),
        ({"type": "THINKING_START"}, "yield REASONING_START instead"),
        ({"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "content": "all so far"}, "needs a delta"),
        ({"type": "TEXT_MESSAGE_CONTENT", "messageId": "m"}, "needs delta"),
        ({"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": 1}, "delta must be of type str"),
        ({"type": "TEXT_MESSAGE_END", "messageId": ""}, "messageId must not be empty"),
        ({"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "tool"}, "role must be one of"),
        ({"type": "TOOL_CALL_START", "toolCallId": "t"}, "toolCallName"),
        ({"type": "MESSAGES_SNAPSHOT", "messages": {}}, "messages must be of type list"),
        ({"type": "CUSTOM", "name": "x", "value": object()}, "not JSON"),
        ({"type": "CUSTOM", "name": "x", "value": {1: 2}}, "not JSON"),
    ],
)
def test_what_readers_could_not_show_is_refused(given_: Any, sentence: str) -> None:
    with pytest.raises(BadChunk, match=sentence):
        sanitize(given_)


def test_a_value_that_holds_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="not JSON"):
        plain({"value": endless})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
TYPES = [*sorted({chunk["type"] for chunk in MADE}), "RUN_STARTED", "NONSENSE"]
FIELDS = (
    *("messageId", "role", "delta", "content", "toolCallId", "toolCallName", "name", "value", "stepName"),
    *("metadata", "timestamp", "messages", "rawEvent", "extra"),
)
chunk_like = st.fixed_dictionaries(
    {"type": st.sampled_from(TYPES)}, optional=dict.fromkeys(FIELDS, any_text | json_values)
)


@given(chunk_like)
def test_a_sanitised_chunk_is_json_that_sanitising_leaves_alone(given_: Chunk) -> None:
    try:
        stored = sanitize(given_)
    except ValueError:
        return
    assert orjson.loads(orjson.dumps(stored)) == stored
    assert sanitize(stored) == stored
    assert rb"\u0000" not in orjson.dumps(stored)
    assert not {"rawEvent", "extra"} & stored.keys()


@given(any_text)
def test_a_delta_loses_nothing_that_is_a_character(text: str) -> None:
    delta = sanitize(chunks.text_content("m", text))["delta"]
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert delta == whole.replace("\0", "\ufffd")


FINISHED = chunks.run_finished("c", "r")
FAILED = chunks.run_error("no", thread_id="c", run_id="r", code="failed")
REPAIR = chunks.run_error("no", thread_id="c", run_id=None, code="failed")


@pytest.mark.parametrize(
    ("chunk", "run_id", "ends"),
    [
        (FINISHED, None, True),
        (FINISHED, "r", True),
        (FINISHED, "other", False),
        (FAILED, None, True),
        (FAILED, "r", True),
        (FAILED, "other", False),
        ({"type": "RUN_ERROR", "message": "no", "runId": "r"}, "r", True),
        ({"type": "RUN_ERROR", "message": "no", "runId": "r"}, "other", False),
        (REPAIR, "r", True),
        (REPAIR, None, True),
        ({"type": "RUN_FINISHED"}, "r", False),
        (chunks.run_started("c", "r"), "r", False),
        (chunks.text_end("m"), None, False),
        ({}, None, False),
    ],
)
def test_the_chunks_that_end_a_run(chunk: Chunk, run_id: str | None, ends: bool) -> None:
    assert is_terminal(chunk, run_id) is ends


def test_a_run_says_which_message_it_writes_and_why_it_ended() -> None:
    assert chunks.run_started("c", "r", message_id="m")["metadata"] == {"durable_chat": {"messageId": "m"}}
    assert "metadata" not in chunks.run_started("c", "r")
    assert chunks.run_finished("c", "r", finish_reason="length")["metadata"]["tanstack"] == {
        "finishReason": "length"
    }
    assert chunks.run_finished("c", "r", usage=[{"inputTokens": 3}])["usage"] == [{"inputTokens": 3}]
    assert FAILED["code"] == "failed"
