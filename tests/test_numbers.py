"""Numbers that JSON can say and 64 bits cannot: as they came, from every door and every row.

PostgreSQL gives a large float back as an integer that is the same to every reader whose numbers are doubles.
"""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from durable_chat.chunks import Chunk, plain
from durable_chat.messages import Prompt
from durable_chat.models import Conversation
from tests.conftest import Chatter, the_run

NUMBERS = [
    0,
    -1,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
    2.0**63,
    2.0**64,
    -1e19,
    1e30,
    1.7e308,
    5e-324,
    0.1,
]


async def answer(prompt: Prompt) -> AsyncIterator[str | Chunk]:
    """Hands back what it was given, as a model's tool might."""
    number = prompt.messages[-1].metadata["n"]
    yield {"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "count"}
    yield {"type": "TOOL_CALL_END", "toolCallId": "c", "input": {"n": number}}
    yield {"type": "RUN_FINISHED", "usage": {"n": number}}


@pytest.mark.parametrize("number", NUMBERS)
async def test_a_number_comes_back_as_it_was_sent(chatter: Chatter, settings: Any, number: float) -> None:
    settings.DURABLE_CHAT = settings.DURABLE_CHAT | {"PROVIDER": {"BACKEND": f"{__name__}.answer"}}
    patched = await chatter.http.patch(
        f"/api/conversations/{chatter.id}", {"metadata": {"n": number}}, content_type="application/json"
    )
    assert patched.status_code == 200, patched.content
    part = {"type": "text", "content": "how many?"}
    message = {"id": "m-1", "role": "user", "parts": [part], "metadata": {"n": number}}
    for _ in range(2):
        sent = await chatter.post(
            f"/api/chat?id={chatter.id}", {"messages": [message], "data": {"n": number}}
        )
        assert sent.status_code == 202, sent.content
        await chatter.idle()
        hydrated = await chatter.hydrate()
        asked, answered = hydrated["messages"]
        call = next(part for part in answered["parts"] if part["type"] == "tool-call")
        told = [hydrated["metadata"], asked["metadata"], call["input"]]
        run = await the_run(chatter.id)
        told += [run.usage, run.options]
        assert all(same(value["n"], number) for value in told), told
        assert run.state == "done"
    (listed,) = (await chatter.http.get("/api/conversations")).json()["conversations"]
    assert same(listed["metadata"], {"n": number})
    assert (await chatter.http.get(f"/api/conversations/{chatter.id}?as=ai-sdk")).status_code == 200


def same(one: Any, other: Any) -> bool:
    """Integers exactly, floats as doubles, everything else as it is."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(other, float) and isinstance(one, int | float):
        return float(one) == other
    return bool(one == other) and type(one) is type(other)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Rows(TestCase):
    """What ``plain`` lets through, in a row."""

    @given(json_values)
    def test_what_is_plain_comes_back_and_can_be_told(self, value: Any) -> None:
        try:
            kept = plain({"value": value})
        except ValueError:
            return
        row = Conversation.objects.create(metadata=kept)
        row.refresh_from_db()
        assert same(row.metadata, kept)
        assert same(orjson.loads(orjson.dumps(row.metadata)), kept)
