"""Our folds against those of the published clients: what a page hydrates is what an open tab shows."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_chat import chunks
from durable_chat.chunks import Chunk
from durable_chat.dialects import AISDK
from durable_chat.messages import Fold, Message, echo, fold

DRIVER = Path(__file__).parent / "clients" / "drivers" / "fold.mjs"
ASKED = [Message(f"u{number}", "user", ({"type": "text", "content": "and?"},)) for number in range(2)]

Shown = dict[str, Any]
Reader = Callable[[list[Chunk]], Shown]


@pytest.fixture(scope="module")
def shown() -> Iterator[Reader]:
    """What the real clients make of a conversation; the AI SDK reads its last run, `r1`."""
    with subprocess.Popen(
        ["node", str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as node:
        assert node.stdin is not None
        assert node.stdout is not None

        def read(stream: list[Chunk]) -> Shown:
            transcoder = AISDK().transcoder("r1")
            items = [item for chunk in stream for item in transcoder.feed(chunk)]
            case = {"chunks": stream, "items": items, "hydrated": AISDK().messages(fold(stream))}
            node.stdin.write(json.dumps(case) + "\n")
            node.stdin.flush()
            answer = node.stdout.readline()
            assert answer, "The driver died: are the packages of tests/clients installed?"
            return json.loads(answer)

        yield read
        node.stdin.close()


def without_times(messages: list[Shown]) -> list[Shown]:
    return [{key: value for key, value in message.items() if key != "createdAt"} for message in messages]


def essence(message: Shown) -> Shown:
    """An AI SDK message without what its reader keeps for itself."""
    own = {"id", "rawInput"}
    parts = [{key: value for key, value in part.items() if key not in own} for part in message["parts"]]
    return {"id": message["id"], "role": message["role"], "parts": parts}


# What a provider may do in an answer, each as the chunks of the n-th thing it does.


def speaks(message_id: str, name: str) -> list[Chunk]:
    words = [chunks.text_content(message_id, f"{name}.{number} ") for number in range(3)]
    return [chunks.text_start(message_id), *words, chunks.text_end(message_id)]


def thinks(_: str, name: str) -> list[Chunk]:
    return [
        *[chunks.step_started(name), chunks.reasoning_start(name), chunks.reasoning_message_start(name)],
        *[chunks.reasoning_message_content(name, "so "), chunks.reasoning_message_content(name, "what")],
        *[chunks.reasoning_message_end(name), chunks.reasoning_end(name), chunks.step_finished(name)],
    ]


def called(message_id: str, name: str) -> list[Chunk]:
    start = chunks.tool_call_start(name, "weather", parent_message_id=message_id)
    return [start, chunks.tool_call_args(name, '{"city"'), chunks.tool_call_args(name, ':"Berlin"}')]


def calls(message_id: str, name: str) -> list[Chunk]:
    return [
        *called(message_id, name),
        chunks.tool_call_end(name),
        chunks.tool_call_result(name, name, {"a": 1}),
    ]


def calls_in_vain(message_id: str, name: str) -> list[Chunk]:
    result = chunks.tool_call_result(name, name, {"error": "no such city"}, failed=True)
    return [*called(message_id, name), chunks.tool_call_end(name), result]


def calls_two(message_id: str, name: str) -> list[Chunk]:
    one, two = f"{name}-1", f"{name}-2"
    ends = [chunks.tool_call_end(two, input={"b": [2]}), chunks.tool_call_end(one)]
    results = [chunks.tool_call_result(two, two, "sunny"), chunks.tool_call_result(one, one, "")]
    return [chunks.tool_call_start(two, "wind"), *called(message_id, one), *ends, *results]


def leaves_a_call_open(message_id: str, name: str) -> list[Chunk]:
    return called(message_id, name)[:2]


def remarks(_: str, name: str) -> list[Chunk]:
    return [chunks.custom(name, {"percent": 50})]


DEEDS = [speaks, thinks, calls, calls_in_vain, calls_two, remarks]
ENDS = [
    chunks.run_finished("c", "r"),
    chunks.run_error("It failed.", thread_id="c", run_id="r", code="failed"),
    chunks.run_error("Stopped.", thread_id="c", run_id="r", code="stopped"),
]


def answer(number: int, done: list[Callable[[str, str], list[Chunk]]], end: Chunk) -> list[Chunk]:
    """One run: its message is started first, and what is open at its end is closed."""
    message_id, run_id = f"a{number}", f"r{number}"
    stream = [chunks.run_started("c", run_id, message_id=message_id), chunks.text_start(message_id)]
    for place, deed in enumerate(done):
        stream += deed(message_id, f"{run_id}-{place}")
    folding = Fold()
    for chunk in stream:
        folding.apply(chunk)
    ending = json.loads(json.dumps(end).replace('"r"', f'"{run_id}"'))
    return [*stream, *folding.closers("The answer was stopped."), ending]


def text_resumes_after_a_thought(done: list[Any]) -> bool:
    """TanStack's reader says the text before a thought twice, unless a tool was called since."""
    spoken = broken = False
    for deed in done:
        if deed in (calls, calls_in_vain, calls_two):
            spoken = broken = False
        elif deed is thinks:
            broken = spoken
        elif deed is speaks and broken:
            return True
        elif deed is speaks:
            spoken = True
    return False


deeds = st.lists(st.sampled_from(DEEDS), max_size=6).filter(
    lambda done: not text_resumes_after_a_thought(done)
)
answers = st.builds(lambda done, last: done + last, deeds, st.sampled_from([[], [leaves_a_call_open]]))


@settings(deadline=None)
@given(st.lists(st.tuples(answers, st.sampled_from(ENDS)), min_size=2, max_size=2))
def test_hydration_is_what_an_open_tab_shows(shown: Reader, runs: Any) -> None:
    stream = [
        chunk
        for number, (done, end) in enumerate(runs)
        for chunk in [*echo(ASKED[number]), *answer(number, done, end)]
    ]
    theirs = shown(stream)
    ours = fold(stream)
    assert without_times(theirs["tanstack"]) == without_times([message.as_json() for message in ours])
    assert essence(theirs["aiSdk"]) == essence(AISDK().messages(ours)[-1])
    failed = runs[-1][1].get("code") == "failed"
    assert theirs["complaints"] == (["It failed."] if failed else [])
