"""Hydration's two ways to the same messages: as values, and as the JSON that their rows hold."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from django.test import override_settings
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from durable_chat import snapshot
from durable_chat.models import Conversation, Message

# PostgreSQL takes no NUL, and knows integers and the digits of fractions, but no floats in JSON.
TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)
NUMBERS = st.integers(-(2**53), 2**53) | st.integers(-(10**9), 10**9).map(lambda number: number / 1000)
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXTS, ANYTHING, max_size=4)
SECONDS = st.integers(0, 4 * 10**9) | st.floats(0, 4e9)
SAID = st.tuples(st.sampled_from(["user", "assistant"]), st.lists(OBJECTS, max_size=3), OBJECTS, SECONDS)

pytestmark = pytest.mark.usefixtures("site")


def filled(said: list[tuple[str, list[dict[str, Any]], dict[str, Any], float]]) -> Conversation:
    conversation = Conversation.objects.create()
    named = [
        Message(conversation=conversation, client_id=f'"{place}\\', position=place, role=role)
        for place, (role, *_) in enumerate(said)
    ]
    for message, (_, parts, metadata, seconds) in zip(named, said, strict=True):
        message.parts, message.metadata = parts, metadata
        message.save()
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
        Message.objects.filter(pk=message.pk).update(created_at=at)
    return conversation


def told(conversation: Conversation) -> list[Any]:
    """The messages as JSON: of the stored text, of the values, and of the rows as Django reads them."""
    stored, values = snapshot.take_stored(conversation.pk), snapshot.take(conversation.pk)
    assert stored is not None
    assert values is not None
    rows = [row.value().as_json() for row in conversation.messages.visible()]
    ways = [list(stored.messages), [message.as_json() for message in values.messages], rows]
    return [orjson.loads(orjson.dumps(messages)) for messages in ways]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.lists(SAID, max_size=4))
@example(said=[("user", [], {}, 0), ("assistant", [{}], {"": None}, 0.25)])
def test_what_the_rows_hold_is_what_their_values_say(
    said: list[tuple[str, list[dict[str, Any]], dict[str, Any], float]],
) -> None:
    stored, values, rows = told(filled(said))
    assert stored == values == rows
    assert [message["parts"] for message in stored] == [parts for _, parts, _, _ in said]


@pytest.mark.parametrize("way", [{"USE_TZ": False}, {"TIME_ZONE": "Asia/Kolkata"}])
def test_moments_are_in_the_sites_time_zone(way: dict[str, Any]) -> None:
    conversation = filled([("user", [], {}, 1e9)])
    with override_settings(**way):
        stored, values, rows = told(conversation)
    assert stored == values == rows
