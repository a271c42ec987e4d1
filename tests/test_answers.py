"""What a provider yields, in any order, is stored so that open tabs and hydration show the same."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durable_chat import chunks
from durable_chat.answers import Answer, closing, opening
from durable_chat.chunks import Chunk
from durable_chat.messages import Fold, Message, fold
from tests.test_dialects_clients import (
    Reader,
    calls,
    calls_in_vain,
    calls_two,
    remarks,
    thinks,
    without_times,
)
from tests.test_dialects_clients import shown as shown  # the real clients, as a fixture

USER = Message("m-1", "user", ({"type": "text", "content": "hello"},))

deeds = st.lists(
    st.sampled_from([calls, calls_in_vain, calls_two, remarks, thinks]) | st.just("text") | st.just(""),
    max_size=8,
)
ends = st.sampled_from(["finished", "failed"])


def stored(run_id: str, done: list[Any], end: str) -> list[Chunk]:
    """The chunks of a run whose provider does these things; a text is the plain string a provider yields."""
    answer = Answer(thread_id="c", run_id=run_id)
    stream = [answer.started()]
    for place, deed in enumerate(done):
        name = f"{run_id}-{place}"
        items = [f"{name} ", f"{name}. "] if deed == "text" else [deed] if deed == "" else deed("", name)
        for item in items:
            if isinstance(item, dict):
                item = {key: value for key, value in item.items() if key != "parentMessageId"}
            for chunk in answer.chunks(item):
                answer.stored(chunk)
                stream.append(chunk)
    stream += answer.close("It ended.", ended="failed" if end == "failed" else "")
    error = chunks.run_error("No.", thread_id="c", run_id=run_id, code="failed")
    return [*stream, answer.finished() if end == "finished" else error]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=deeds, second=deeds, end=ends)
def test_tabs_show_what_hydration_shows(shown: Reader, first: list[Any], second: list[Any], end: str) -> None:
    stream = [
        *opening([USER], echoed=False, replaces=False),
        *stored("r0", first, "finished"),
        *opening([Message("m-2", "user", USER.parts)], echoed=False, replaces=False),
        *stored("r1", second, end),
    ]
    seen = shown(stream)
    assert seen["complaints"] == [] or end == "failed"
    assert without_times(seen["tanstack"]) == without_times([message.as_json() for message in fold(stream)])


@given(done=deeds, end=ends)
def test_nothing_that_was_said_is_lost_and_nothing_stays_open(done: list[Any], end: str) -> None:
    stream = stored("r", done, end)
    said = "".join(f"r-{place} r-{place}. " for place, deed in enumerate(done) if deed == "text")
    assert "".join(message.text() for message in fold(stream)) == said
    folding = Fold()
    for chunk in stream:
        folding.apply(chunk)
    assert folding.closers("left open") == []


def test_a_frame_from_the_provider_is_not_stored_but_heard() -> None:
    answer = Answer(thread_id="c", run_id="r")
    usage = [{"inputTokens": 3}]
    assert answer.chunks({"type": "RUN_STARTED", "threadId": "x", "runId": "y"}) == []
    frame = {"type": "RUN_FINISHED", "threadId": "x", "runId": "y", "usage": usage}
    told = {"type": "CUSTOM", "name": "run.usage", "value": {"runId": "r", "usage": usage}}
    assert answer.chunks(frame) == [told]
    assert answer.chunks(frame) == answer.chunks(frame | {"usage": None}) == []
    assert answer.finished()["usage"] == usage
    with pytest.raises(RuntimeError, match="out of tokens"):  # which users are told no details of
        answer.chunks({"type": "RUN_ERROR", "message": "out of tokens"})


@pytest.mark.parametrize("item", [None, 7, {}, {"type": "NONSENSE"}, {"type": "TEXT_MESSAGE_CONTENT"}])
def test_what_is_no_chunk_is_refused(item: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Answer(thread_id="c", run_id="r").chunks(item)


def test_the_accumulated_text_is_not_stored() -> None:
    answer = Answer(thread_id="c", run_id="r")
    item = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "a", "delta": "b", "content": "ab"}
    own = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "answer-r-a", "delta": "b"}
    assert answer.chunks(item) == [own]


def test_ids_that_a_provider_repeats_are_another_message_each_time() -> None:
    stream = [*says("r1", "a"), *says("r2", "a"), *says("r2", "x" * 500)]
    folded = fold(stream)
    assert [message.text() for message in folded] == ["r1", "r2", "r2"]
    assert all(len(message.id) <= 128 for message in folded)


def says(run_id: str, message_id: str) -> list[Chunk]:
    answer = Answer(thread_id="c", run_id=run_id)
    spoken = [
        chunks.text_start(message_id),
        chunks.text_content(message_id, run_id),
        chunks.text_end(message_id),
    ]
    return [chunk for item in spoken for chunk in answer.chunks(item)]


def test_the_conversation_is_not_the_providers_to_restate() -> None:
    with pytest.raises(ValueError, match="MESSAGES_SNAPSHOT"):
        Answer(thread_id="c", run_id="r").chunks(chunks.messages_snapshot([]))


def test_a_snapshot_too_large_for_one_append_leaves_out_the_older_files() -> None:
    file = {"type": "image", "source": {"type": "data", "value": "x" * 3_000_000, "mimeType": "image/png"}}
    text = {"type": "text", "content": "look"}
    history = [Message(f"m-{number}", "user", (text, file)) for number in range(3)]
    (*_, snapshot) = opening(history, echoed=False, replaces=False)
    assert [len(message["parts"]) for message in snapshot["messages"]] == [1, 1, 2]


def test_closing_names_the_answer_of_its_own_run() -> None:
    folding = Fold([USER, Message("old", "assistant", ({"type": "text", "content": "before"},))])
    assert [chunk["messageId"] for chunk in closing(folding, "x", name="new", known=folding.messages)] == [
        *("new", "new")
    ]
