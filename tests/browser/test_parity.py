"""Two folds, one transcript: what the page made of the chunks is what a reload renders."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durable_chat import chunks as c
from durable_chat.chunks import Chunk
from durable_chat.messages import Message, echo, fold
from durable_chat.templatetags.durable_chat import shown
from tests.browser.conftest import copied

FOLDER = """
import { createInterface } from "node:readline";
import { Fold } from "./durable_chat/static/durable_chat/fold.js";

for await (const line of createInterface({ input: process.stdin })) {
    const fold = new Fold();
    for (const chunk of JSON.parse(line)) fold.apply(chunk);
    console.log(JSON.stringify(fold.messages));
}
"""

texts = st.text("ab \n<&é🙂\u2028", max_size=6)
values = st.one_of(st.none(), texts, st.integers(-5, 5), st.lists(st.booleans(), max_size=2))


def said(message_id: str) -> st.SearchStrategy[list[Chunk]]:
    pieces = st.lists(texts.map(lambda text: c.text_content(message_id, text)), max_size=3)
    return pieces.map(lambda pieces: [c.text_start(message_id), *pieces, c.text_end(message_id)])


def thought(message_id: str) -> st.SearchStrategy[list[Chunk]]:
    return st.lists(texts.map(lambda text: c.reasoning_message_content(message_id, text)), max_size=3)


def stepped(name: str, within: list[Chunk]) -> list[Chunk]:
    return [c.step_started(name), *within, c.step_finished(name)]


@st.composite
def called(draw: st.DrawFn, call_id: str, parent: str) -> list[Chunk]:
    arguments = draw(st.lists(texts.map(lambda text: c.tool_call_args(call_id, text)), max_size=2))
    call = [c.tool_call_start(call_id, draw(texts), parent_message_id=parent), *arguments]
    call.append(c.tool_call_end(call_id, input=draw(values)))
    if draw(st.booleans()):
        call.append(c.tool_call_result(call_id, parent, draw(values), failed=draw(st.booleans())))
    return call


@st.composite
def run(draw: st.DrawFn, number: int) -> list[Chunk]:
    """A question and its answer. Calls are counted anew in every answer, as some models do."""
    metadata = draw(
        st.sampled_from([{}, {"author": {"id": "1", "name": "A"}}, {"author": {"id": "2", "name": ""}}])
    )
    parts = ({"type": "text", "content": draw(texts)},)
    asked = Message(id=f"u{number}", role="user", parts=parts, metadata=metadata)
    written: list[Chunk] = []
    for place, name in enumerate(draw(st.lists(st.sampled_from("ab"), max_size=5))):
        message_id, thoughts = f"{name}{number}", thought(f"t{number}")
        calls = called(f"k{place}", message_id)
        written += draw(st.one_of(said(message_id), thoughts, calls, st.builds(stepped, texts, thoughts)))
    return [*echo(asked), c.run_started("c", "r"), *written, *draw(ends(f"a{number}"))]


def ends(message_id: str) -> st.SearchStrategy[list[Chunk]]:
    failed = c.run_error("x", thread_id="c", run_id="r", code="x")
    said = {"metadata": {"durable_chat": {"ended": "failed"}}}
    marked = [c.text_start(message_id), c.text_end(message_id) | said, failed]
    return st.sampled_from([[c.run_finished("c", "r")], [failed], marked])


@st.composite
def conversations(draw: st.DrawFn) -> list[Chunk]:
    return [chunk for number in range(draw(st.integers(1, 3))) for chunk in draw(run(number))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator["subprocess.Popen[bytes]"]:
    command = ["node", "--input-type=module", "--eval", FOLDER]
    home: Path = copied(tmp_path_factory.mktemp("folder"))
    with subprocess.Popen(command, cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        _pipe(process.stdin).close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(conversations())
def test_live_and_rendered(folder: "subprocess.Popen[bytes]", chunks: list[Chunk]) -> None:
    _pipe(folder.stdin).write(orjson.dumps(chunks) + b"\n")
    _pipe(folder.stdin).flush()
    live = [_plain(message) for message in orjson.loads(_pipe(folder.stdout).readline())]
    rendered = [shown(message) for message in fold(chunks)]
    assert [message for message in live if message["role"] not in ("error", "note")] == rendered


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    parts = [{key: part[key] for key in part if key != "stepId"} for part in message["parts"]]
    told = {"author": message.get("author"), "ended": message.get("ended", "")}
    return {"id": message["id"], "role": message["role"], **told, "parts": parts}


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream
