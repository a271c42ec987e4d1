"""Every dialect against the same cases: what it reads, and that what it shows can be sent again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_chat import chunks
from durable_chat.dialects import AISDK, Dialect, TanStack, detect, named
from durable_chat.dialects.base import MAX_NEW_BYTES, MAX_PARTS
from durable_chat.exceptions import BadInput, ChatError, TooLarge
from durable_chat.messages import Message, Turn

DATA_URL = "data:image/png;base64,iVBORw0KGgo="
PICTURE = {"type": "image", "source": {"type": "data", "value": "iVBORw0KGgo=", "mimeType": "image/png"}}
LINKED = {
    "type": "document",
    "source": {"type": "url", "value": "https://example.com/a.pdf", "mimeType": "application/pdf"},
}


@dataclass(frozen=True)
class Client:
    """How one family of clients writes the same things."""

    dialect: Dialect
    text: Callable[[Any], dict[str, Any]]
    picture: dict[str, Any]
    linked: dict[str, Any]
    envelope: dict[str, Any]
    trigger: str

    def body(self, *parts: Any, **fields: Any) -> dict[str, Any]:
        message = {"id": "u", "role": "user", "parts": list(parts)} | fields
        return self.envelope | {"messages": [message]}


TANSTACK = Client(
    dialect=TanStack(),
    text=lambda content: {"type": "text", "content": content},
    picture=PICTURE,
    linked=LINKED,
    envelope={"data": {"model": "fast"}},
    trigger="send",
)
AI_SDK = Client(
    dialect=AISDK(),
    text=lambda content: {"type": "text", "text": content},
    picture={"type": "file", "url": DATA_URL, "mediaType": "image/png"},
    linked={"type": "file", "url": "https://example.com/a.pdf", "mediaType": "application/pdf"},
    envelope={"id": "c", "trigger": "submit-message", "messageId": None, "model": "fast"},
    trigger="submit",
)


@pytest.fixture(params=[TANSTACK, AI_SDK], ids=lambda client: client.dialect.name)
def client(request: pytest.FixtureRequest) -> Client:
    return request.param


def test_a_body_says_which_client_wrote_it(client: Client) -> None:
    body = client.body(client.text("hello"))
    assert detect(body).name == client.dialect.name
    assert named(client.dialect.name).name == client.dialect.name


def test_a_turn_is_the_newest_user_message_and_the_options(client: Client) -> None:
    body = client.body(client.text("hello"), client.picture, client.linked, metadata={"a": [1]})
    body["messages"] = [
        {"id": "u0", "role": "user", "parts": "of no interest"},
        {"id": "a0", "role": "assistant"},
        *body["messages"],
        {"id": "a1", "role": "assistant", "parts": [{"type": "unknown"}]},
    ]
    turn = client.dialect.read(body)
    parts = ({"type": "text", "content": "hello"}, PICTURE, LINKED)
    assert turn.message == Message("u", "user", parts, {"a": [1]})
    assert (turn.trigger, turn.options, turn.dialect) == (
        client.trigger,
        {"model": "fast"},
        client.dialect.name,
    )


def test_a_message_without_an_id_gets_one(client: Client) -> None:
    body = client.body(client.text("hello"))
    del body["messages"][0]["id"]
    first, second = client.dialect.read(body).message, client.dialect.read(body).message
    assert first is not None
    assert second is not None
    assert first.id != second.id
    assert len(first.id) == 36


@pytest.mark.parametrize("messages", [None, {}, "hello", [], [None], ["hello"], [[]], 1])
def test_messages_are_a_list_of_objects(client: Client, messages: Any) -> None:
    with pytest.raises(BadInput, match="message"):
        client.dialect.read(client.envelope | {"messages": messages})


@pytest.mark.parametrize("body", [None, [], "hello", 1])
def test_a_body_is_an_object(client: Client, body: Any) -> None:
    with pytest.raises(BadInput, match="must be a JSON object"):
        client.dialect.read(body)
    with pytest.raises(BadInput, match="must be a JSON object"):
        detect(body)


@pytest.mark.parametrize("role", [None, "", "robot", 1, ["user"]])
def test_every_message_has_a_role_that_is_known(client: Client, role: Any) -> None:
    body = client.body(client.text("hello"))
    body["messages"].insert(0, {"id": "x", "role": role, "parts": []})
    with pytest.raises(BadInput, match="needs a role"):
        client.dialect.read(body)


def test_there_is_a_message_of_the_user(client: Client) -> None:
    with pytest.raises(BadInput, match="no message of the user"):
        client.dialect.read(client.body(client.text("hello"), role="assistant"))


@pytest.mark.parametrize("given_id", ["", "x" * 129, "a\nb", "a\0b", "\u202e", 7, ["u"], {}])
def test_an_id_is_short_and_printable(client: Client, given_id: Any) -> None:
    with pytest.raises(BadInput, match="message id"):
        client.dialect.read(client.body(client.text("hello"), id=given_id))


@pytest.mark.parametrize("given_id", ["u", "x" * 128, "msg_ä 1"])
def test_other_ids_are_kept(client: Client, given_id: str) -> None:
    turn = client.dialect.read(client.body(client.text("hello"), id=given_id))
    assert turn.message is not None
    assert turn.message.id == given_id


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (None, "at least one part"),
        ({}, "at least one part"),
        ([], "at least one part"),
        (["hello"], "must be an object"),
        ([{"type": "tool-call", "id": "t"}], r'cannot have a part "tool-call"'),
        ([{"type": "dynamic-tool"}], r'cannot have a part "dynamic-tool"'),
        ([{}], "cannot have a part without a type"),
        ([{"type": ["text"]}], "cannot have a part without a type"),
        ([{"type": "text"}], "needs"),
        ([{"type": "x" * 1000}], "cannot have a part"),
    ],
)
def test_parts_are_of_known_types(client: Client, parts: Any, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as caught:
        client.dialect.read(client.envelope | {"messages": [{"id": "u", "role": "user", "parts": parts}]})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("content", [None, 1, ["hello"], {}])
def test_a_text_is_a_text(client: Client, content: Any) -> None:
    with pytest.raises(BadInput, match="a text"):
        client.dialect.read(client.body(client.text(content)))


@pytest.mark.parametrize("content", ["", " \n\t", "\u2003"])
def test_a_message_says_something(client: Client, content: str) -> None:
    with pytest.raises(BadInput, match="empty"):
        client.dialect.read(client.body(client.text(content), client.text("")))
    assert client.dialect.read(client.body(client.text(content), client.picture)).message is not None


def test_a_message_is_limited(client: Client) -> None:
    with pytest.raises(TooLarge):
        client.dialect.read(client.body(client.text("x" * MAX_NEW_BYTES)))
    with pytest.raises(TooLarge):
        client.dialect.read(client.body(client.text("hello"), metadata={"a": "x" * MAX_NEW_BYTES}))
    with pytest.raises(BadInput, match="at most 100 parts"):
        client.dialect.read(client.body(*[client.text("x")] * (MAX_PARTS + 1)))
    client.dialect.read(client.body(*[client.text("x" * 10_000)] * MAX_PARTS))


def test_the_history_is_not(client: Client) -> None:
    body = client.body(client.text("hello"))
    body["messages"].insert(0, {"role": "assistant", "parts": [client.text("x" * MAX_NEW_BYTES)]})
    client.dialect.read(body)


def test_options_are_limited_too(client: Client) -> None:
    large = {"text": "x" * MAX_NEW_BYTES}
    with pytest.raises(TooLarge):
        client.dialect.read(client.body(client.text("hello")) | large | {"data": large})


def test_what_cannot_be_stored_is_refused_or_mended(client: Client) -> None:
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    with pytest.raises(BadInput, match="could be stored"):
        client.dialect.read(client.body(client.text("hello"), metadata={"deep": deep}))
    turn = client.dialect.read(client.body(client.text("a\0b\ud800")))
    assert turn.message is not None
    assert turn.message.text() == "a\ufffdb\ufffd"


@pytest.mark.parametrize("metadata", ["a", 1, [], True])
def test_metadata_is_an_object(client: Client, metadata: Any) -> None:
    with pytest.raises(BadInput, match="metadata"):
        client.dialect.read(client.body(client.text("hello"), metadata=metadata))


def test_what_is_shown_can_be_sent_again(client: Client) -> None:
    sent = client.dialect.read(
        client.body(client.text("a"), client.picture, client.linked, metadata={"a": 1})
    )
    assert sent.message is not None
    again = client.dialect.read(client.envelope | {"messages": client.dialect.messages([sent.message])})
    assert again == sent


def test_a_transcoder_is_done_at_the_end_of_its_own_run(client: Client) -> None:
    transcoder = client.dialect.transcoder("r")
    for chunk in [
        *[chunks.run_started("c", "other"), chunks.run_finished("c", "other")],
        *[chunks.run_started("c", "r"), chunks.text_start("m"), chunks.text_content("m", "a")],
    ]:
        transcoder.feed(chunk)
        assert not transcoder.done
    assert transcoder.feed(chunks.run_finished("c", "r"))
    assert transcoder.done
    assert transcoder.feed(chunks.run_error("no", thread_id="c", run_id=None, code="failed")) == []


scalars = (
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "text", "user", "file", "data"])
)
keys = st.sampled_from(
    [
        "messages",
        "role",
        "parts",
        "type",
        "text",
        "content",
        "id",
        "data",
        "trigger",
        "source",
        "value",
        "url",
    ]
)
bodies = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=20,
)
near_parts = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "file", "image"]) | scalars},
        optional=dict.fromkeys(("text", "content", "source", "url", "mediaType", "metadata"), bodies),
    )
    | bodies,
    max_size=3,
)
near_messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"])},
    optional={
        "id": bodies,
        "parts": near_parts,
        "content": st.text(max_size=3) | near_parts,
        "metadata": bodies,
    },
)
near_bodies = st.fixed_dictionaries(
    {"messages": st.lists(near_messages, max_size=3)},
    optional={"trigger": st.sampled_from(["submit-message", "x"]) | bodies, "data": bodies},
)


def read(body: Any) -> Turn | ChatError:
    try:
        return detect(body).read(body)
    except ChatError as error:
        return error


@given(near_bodies | bodies)
def test_any_body_is_a_turn_or_a_sentence(body: Any) -> None:
    outcome = read(body)
    if isinstance(outcome, ChatError):
        assert outcome.status in (400, 413)
        assert str(outcome).endswith(".")
        return
    assert outcome.message is not None
    assert outcome.message.role == "user"
    said = outcome.message.text().strip()
    assert said or any(part["type"] != "text" for part in outcome.message.parts)


# --- what only one of them has -----------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["hello", [{"type": "text", "content": "hello"}]])
def test_tanstack_may_send_a_model_message(content: Any) -> None:
    turn = TanStack().read({"messages": [{"id": "u", "role": "user", "content": content}]})
    assert turn.message == Message("u", "user", ({"type": "text", "content": "hello"},))
    assert turn.options == {}


@pytest.mark.parametrize(
    "source",
    [
        None,
        "https://example.com/a.png",
        {"type": "file", "value": "a"},
        {"type": "url"},
        {"type": "url", "value": ""},
        {"type": "url", "value": "https://example.com/a.png", "mimeType": 1},
        {"type": "data", "value": "iVBORw0KGgo="},
    ],
)
def test_tanstacks_media_have_a_source(source: Any) -> None:
    with pytest.raises(BadInput, match="source"):
        TanStack().read(TANSTACK.body({"type": "image", "source": source}))


@pytest.mark.parametrize("data", [[], "fast", 1])
def test_tanstacks_data_is_an_object(data: Any) -> None:
    with pytest.raises(BadInput, match='"data" must be an object'):
        TanStack().read(TANSTACK.body(TANSTACK.text("hello")) | {"data": data})


def test_the_ai_sdk_says_when_it_regenerates() -> None:
    body = AI_SDK.body(AI_SDK.text("hello")) | {"trigger": "regenerate-message", "messageId": "a1"}
    assert AISDK().read(body).trigger == "regenerate"


@pytest.mark.parametrize("trigger", [None, "", "resume-stream", 1, ["submit-message"]])
def test_the_ai_sdks_triggers_are_two(trigger: Any) -> None:
    body = AI_SDK.body(AI_SDK.text("hello")) | {"trigger": trigger}
    with pytest.raises(BadInput, match="trigger"):
        detect(body).read(body)


@pytest.mark.parametrize(
    ("url", "media_type", "part"),
    [
        (DATA_URL, "image/png", PICTURE),
        ("data:text/plain,hello", "text/plain", "document"),
        ("https://example.com/a.mp3", "audio/mpeg", "audio"),
        ("https://example.com/a.mp4", "video/mp4", "video"),
        ("https://example.com/a,b", "", "document"),
    ],
)
def test_the_ai_sdks_files_are_media_of_their_kind(url: str, media_type: str, part: Any) -> None:
    file = {"type": "file", "url": url, "mediaType": media_type}
    message = AISDK().read(AI_SDK.body(file | {"filename": "a"})).message
    assert message is not None
    (stored,) = message.parts
    assert stored.pop("metadata") == {"filename": "a"}
    expected = {"type": part, "source": {"type": "url", "value": url, "mimeType": media_type}}
    assert stored == (part if isinstance(part, dict) else expected)


@pytest.mark.parametrize("fields", [{}, {"url": ""}, {"url": 1}, {"url": DATA_URL, "mediaType": None}])
def test_the_ai_sdks_files_have_a_url_and_a_type(fields: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match='type "file" needs'):
        AISDK().read(AI_SDK.body({"type": "file", "mediaType": "image/png"} | fields))


def test_dialects_are_named() -> None:
    with pytest.raises(BadInput, match="tanstack"):
        named("esperanto")
