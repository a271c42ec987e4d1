"""POST api/chat: what is written, what is answered, and what is refused."""

import asyncio
from contextlib import aclosing
from typing import Any

import orjson
import pytest
from django.test import AsyncRequestFactory

from durable_chat import backends
from durable_chat.chunks import is_terminal
from durable_chat.messages import fold
from durable_chat.models import Message, Run
from durable_chat.runs import loop
from durable_chat.streams.client import subscribe
from durable_chat.views import SendView
from tests.conftest import Chatter, new_id, stored, the_run, words


def kinds(chunks: list[dict[str, Any]]) -> list[str]:
    return [chunk["type"] for chunk in chunks]


async def test_a_send_is_accepted_answered_and_filed(chatter: Chatter) -> None:
    response = await chatter.send("words=3", id="m-1")
    assert (response.status_code, response.content) == (202, b"")
    assert response["Cache-Control"] == "no-store"
    await chatter.idle()
    assert kinds(await chatter.chunks()) == [
        *("TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"),
        "RUN_STARTED",
        *("TEXT_MESSAGE_START", *["TEXT_MESSAGE_CONTENT"] * 3, "TEXT_MESSAGE_END"),
        "RUN_FINISHED",
    ]
    assert await chatter.texts() == [("user", "words=3"), ("assistant", words(3))]


async def test_the_answer_to_the_post_means_that_the_question_is_durable(chatter: Chatter) -> None:
    await chatter.send("words=50 delay=20", id="m-1")
    chunks = await chatter.chunks()
    assert kinds(chunks)[:4] == [
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_END",
        "RUN_STARTED",
    ]
    hydrated = await chatter.hydrate()
    assert [message["id"] for message in hydrated["messages"]] == ["m-1"]
    assert hydrated["activeRun"] == {"runId": (await the_run(chatter.id)).pk}
    await chatter.post(f"/api/chat/{chatter.id}/stop", {})


async def test_hydration_is_the_fold_of_the_stream_up_to_its_offset(chatter: Chatter) -> None:
    for text in ("words=5", "show me some reasoning", "call a tool", "error please"):
        await chatter.send(text)
        await chatter.idle()
        hydrated = await chatter.hydrate()
        folded = fold(await stored(chatter.id, until=hydrated["offset"]))
        assert [(m["id"], m["role"], m["parts"]) for m in hydrated["messages"]] == [
            (m.id, m.role, list(m.parts)) for m in folded
        ]


async def test_a_run_has_one_terminal_chunk_and_nothing_after_it(chatter: Chatter) -> None:
    await chatter.send("call a tool")
    await chatter.idle()
    chunks = await chatter.chunks()
    run = await the_run(chatter.id)
    assert [is_terminal(chunk) for chunk in chunks].count(True) == 1
    assert is_terminal(chunks[-1], run.pk)
    assert (run.state, run.lease_expires_at) == ("done", None)
    assert run.end_offset == (await chatter.hydrate())["offset"]


async def test_parts_beyond_text_are_kept_in_the_row(chatter: Chatter) -> None:
    image = {"type": "image", "source": {"type": "url", "value": "https://example.com/cat.png"}}
    parts = [{"type": "text", "content": "words=1"}, image]
    await chatter.post(
        f"/api/chat?id={chatter.id}", {"messages": [{"id": "m-1", "role": "user", "parts": parts}]}
    )
    await chatter.idle()
    assert (await chatter.hydrate())["messages"][0]["parts"] == parts


async def test_a_message_with_a_file_is_shown_once_and_whole_to_every_reader(chatter: Chatter) -> None:
    """Clients append an echo to what they show: after a file it would be the same text again."""
    image = {"type": "image", "source": {"type": "data", "value": "aGk=", "mimeType": "image/png"}}
    parts = [{"type": "text", "content": "words=1"}, image]
    message = {"id": "m-1", "role": "user", "parts": parts}
    await chatter.post(f"/api/chat?id={chatter.id}", {"messages": [message]})
    await chatter.idle()
    chunks = await chatter.chunks()
    assert kinds(chunks)[:5] == [
        *("TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"),
        *("MESSAGES_SNAPSHOT", "RUN_STARTED"),
    ]
    assert fold(chunks)[0].parts == tuple(parts)


async def test_a_reader_from_the_middle_learns_whose_error_it_is(chatter: Chatter) -> None:
    """TanStack shows an error of an answer that it has not seen begin as another, empty message."""
    await chatter.send("error please")
    await chatter.idle()
    *_, start, end, error = await chatter.chunks()
    answer = (await chatter.hydrate())["messages"][-1]
    assert kinds([start, end, error]) == ["TEXT_MESSAGE_START", "TEXT_MESSAGE_END", "RUN_ERROR"]
    assert start["messageId"] == end["messageId"] == answer["id"]


async def test_only_the_newest_user_message_is_new(chatter: Chatter) -> None:
    history = [
        {"id": "old-1", "role": "user", "parts": [{"type": "text", "content": "before"}]},
        {"id": "old-2", "role": "assistant", "parts": [{"type": "text", "content": "hello"}]},
        {"id": "m-1", "role": "user", "parts": [{"type": "text", "content": "words=1"}]},
    ]
    await chatter.post(f"/api/chat?id={chatter.id}", {"messages": history})
    await chatter.idle()
    assert await chatter.texts() == [("user", "words=1"), ("assistant", words(1))]


async def test_the_ai_sdk_gets_a_pointer_to_the_run(chatter: Chatter) -> None:
    response = await chatter.submit("words=3")
    run = await the_run(chatter.id)
    assert response.status_code == 201
    assert response["Location"] == f"/api/chat-stream?id={chatter.id}&run={run.pk}"
    assert response.json() == {"streamUrl": response["Location"]}
    assert response["Access-Control-Expose-Headers"] == "Location"


async def test_the_same_message_at_once_is_one_run(chatter: Chatter) -> None:
    sends = [chatter.send("words=20 delay=20", id="m-1") for _ in range(8)]
    responses = await asyncio.gather(*sends)
    assert [response.status_code for response in responses] == [202] * 8
    await chatter.idle()
    assert await Run.objects.filter(conversation_id=chatter.id).acount() == 1
    assert await chatter.texts() == [("user", "words=20 delay=20"), ("assistant", words(20))]


async def test_different_messages_at_once_are_one_run_and_refusals(chatter: Chatter) -> None:
    responses = await asyncio.gather(*(chatter.send("words=20 delay=20") for _ in range(8)))
    assert sorted(response.status_code for response in responses) == [202, *[409] * 7]
    await chatter.idle()
    assert await chatter.texts() == [("user", "words=20 delay=20"), ("assistant", words(20))]


async def test_a_busy_conversation_names_its_run(chatter: Chatter) -> None:
    await chatter.send("words=100 delay=20")
    refused = await chatter.send("words=1")
    assert refused.status_code == 409
    assert refused.json()["activeRun"] == {"runId": (await the_run(chatter.id)).pk}
    await chatter.post(f"/api/chat/{chatter.id}/stop", {})


async def test_a_client_that_obeyed_the_terminal_chunk_is_never_refused(chatter: Chatter) -> None:
    """The conversation is released a moment after the terminal chunk is readable: a send waits for that."""
    for number in range(20):
        response = await chatter.send("words=1")
        assert response.status_code == 202, (number, response.content)
        async with aclosing(subscribe(backends.get_streams(), f"chat-{chatter.id}")) as batches:
            ends = 0
            while ends <= number:
                ends += sum(map(is_terminal, (await anext(batches)).items))


async def test_submitting_an_answered_message_again_points_to_its_run(chatter: Chatter) -> None:
    first = await chatter.submit("words=2", id="m-1")
    await chatter.idle()
    again = await chatter.submit("words=2", id="m-1")
    assert again["Location"] == first["Location"]
    assert await Run.objects.acount() == 1


@pytest.mark.parametrize("again", ["send", "submit"])
async def test_asking_again_replaces_the_answer_without_a_second_echo(chatter: Chatter, again: str) -> None:
    await chatter.send("words=2", id="m-1")
    await chatter.idle()
    old = (await chatter.hydrate())["messages"][1]["id"]
    if again == "send":
        await chatter.send("words=2", id="m-1")
    else:
        await chatter.submit("words=2", id="m-1", trigger="regenerate-message")
    await chatter.idle()
    chunks = await chatter.chunks()
    echoes = [c for c in chunks if c["type"] == "TEXT_MESSAGE_START" and c["role"] == "user"]
    assert len(echoes) == 1
    assert await chatter.texts() == [("user", "words=2"), ("assistant", words(2))]
    hydrated = await chatter.hydrate()
    assert hydrated["messages"][1]["id"] != old
    assert [m.id for m in fold(chunks)] == [m["id"] for m in hydrated["messages"]]


async def test_an_id_means_one_message(chatter: Chatter) -> None:
    await chatter.send("words=1", id="m-1")
    await chatter.idle()
    refused = await chatter.send("words=2", id="m-1")
    assert refused.status_code == 409
    assert await chatter.texts() == [("user", "words=1"), ("assistant", words(1))]


async def test_a_reader_that_leaves_ends_nothing(chatter: Chatter) -> None:
    sending = asyncio.create_task(chatter.send("words=40 delay=10"))
    async with aclosing(subscribe(backends.get_streams(), f"chat-{chatter.id}")) as batches:
        while not (await anext(batches)).items:
            continue
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await chatter.idle()
    assert await chatter.texts() == [("user", "words=40 delay=10"), ("assistant", words(40))]


async def test_stop_keeps_the_partial_answer(chatter: Chatter) -> None:
    await chatter.send("words=1000 delay=20")
    stopped = await chatter.post(f"/api/chat/{chatter.id}/stop", {})
    assert stopped.status_code == 202
    await chatter.idle()
    terminal = [chunk for chunk in await chatter.chunks() if is_terminal(chunk)]
    assert [chunk["code"] for chunk in terminal] == ["stopped"]
    texts = await chatter.texts()
    assert words(1000).startswith("".join(text for role, text in texts if role == "assistant"))
    assert (await chatter.post(f"/api/chat/{chatter.id}/stop", {})).status_code == 204
    assert (await chatter.send("words=1")).status_code == 202


async def test_a_provider_that_fails_says_so_to_the_reader_without_details(
    chatter: Chatter, settings: Any
) -> None:
    settings.DURABLE_CHAT = {"PROVIDER": {"BACKEND": "tests.test_send.leaking", "API_KEY": "sk-sentinel"}}
    await chatter.send("hello")
    await chatter.idle()
    chunks = await chatter.chunks()
    assert chunks[-1]["type"] == "RUN_ERROR"
    assert "sk-sentinel" not in str(chunks)
    assert "sk-sentinel" not in str([vars(run) async for run in Run.objects.all()])
    assert (await the_run(chatter.id)).state == "failed"
    assert await chatter.texts() == [("user", "hello"), ("assistant", "One moment")]
    assert "RuntimeError" in (await the_run(chatter.id)).error
    assert "test_send.py" in (await the_run(chatter.id)).error


async def test_a_provider_that_yields_nonsense_is_told_what_to_yield(chatter: Chatter, settings: Any) -> None:
    settings.DURABLE_CHAT = {"PROVIDER": {"BACKEND": "tests.test_send.babbling"}}
    await chatter.send("hello")
    await chatter.idle()
    assert "yields text or chunks" in (await the_run(chatter.id)).error


async def babbling(prompt: Any) -> Any:
    yield 42


async def leaking(prompt: Any) -> Any:
    yield "One moment"
    raise RuntimeError(f"Incorrect API key provided: {prompt.api_key}")


LONG = "x" * 1_100_000


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"not json", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'{"messages": []}', 400),
        (b'{"messages": "hello"}', 400),
        (b'{"messages": [1]}', 400),
        (b'{"messages": [{"id": "a", "role": "owner", "parts": []}]}', 400),
        (b'{"messages": [{"id": "a", "role": "assistant", "parts": []}]}', 400),
        (b'{"messages": [{"id": "a", "role": "user", "parts": []}]}', 400),
        (b'{"messages": [{"id": "a", "role": "user", "parts": [{"type": "text", "content": 1}]}]}', 400),
        (b'{"messages": [{"id": 7, "role": "user", "parts": [{"type": "text", "content": "x"}]}]}', 400),
        (b'{"trigger": "explode", "messages": [{"id": "a", "role": "user", "parts": []}]}', 400),
        (
            b'{"messages": [{"id": "a", "role": "user", "parts": [{"type": "text", "content": "%s"}]}]}'
            % LONG.encode(),
            413,
        ),
    ],
)
async def test_bad_input_is_refused_with_a_sentence_and_writes_nothing(
    chatter: Chatter, body: bytes, status: int
) -> None:
    response = await chatter.http.post(f"/api/chat?id={chatter.id}", body, content_type="application/json")
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    assert response["Content-Type"] == "application/json"
    assert await chatter.chunks() == []
    assert not await Message.objects.aexists()
    assert not await Run.objects.aexists()


async def test_the_envelope_has_a_limit_of_its_own(chatter: Chatter, settings: Any) -> None:
    settings.DURABLE_CHAT = {"MAX_BODY_BYTES": 5_000_000}
    old = {"id": "old", "role": "assistant", "parts": [{"type": "text", "content": "x" * 4_000_000}]}
    new = {"id": "m-1", "role": "user", "parts": [{"type": "text", "content": "words=1"}]}
    accepted = await chatter.post(f"/api/chat?id={chatter.id}", {"messages": [old, new]})
    assert accepted.status_code == 202
    refused = await chatter.post(f"/api/chat?id={chatter.id}", {"messages": [old, old, new]})
    assert refused.status_code == 413


@pytest.mark.parametrize(
    "path", ["/api/chat", "/api/chat?id=", "/api/chat?id=no%20spaces", f"/api/chat?id={'x' * 129}"]
)
async def test_a_missing_or_malformed_id(chatter: Chatter, path: str) -> None:
    message = {"id": new_id(), "role": "user", "parts": [{"type": "text", "content": "hi"}]}
    response = await chatter.post(path, {"messages": [message]})
    assert (response.status_code, list(response.json())) == (400, ["error"])


async def test_csrf_failures_are_json(site: None) -> None:
    strict = Chatter(enforce_csrf_checks=True)
    response = await strict.post("/api/conversations", {})
    assert response.status_code == 403
    assert "X-CSRFToken" in response.json()["error"]
    strict.http.cookies["csrftoken"] = "a" * 32
    allowed = await strict.post("/api/conversations", {}, **{"X-CSRFToken": "a" * 32})
    assert allowed.status_code == 201


async def test_a_form_is_not_a_body(chatter: Chatter) -> None:
    response = await chatter.http.post(f"/api/chat?id={chatter.id}", {"messages": "x"})
    assert (response.status_code, list(response.json())) == (400, ["error"])


@pytest.mark.parametrize("trigger", ["submit-message", "regenerate-message"])
async def test_an_answer_is_not_answered(chatter: Chatter, trigger: str) -> None:
    """The AI SDK names the answer to be replaced beside the messages, which end with the user's."""
    await chatter.submit("words=2", id="m-1")
    await chatter.idle()
    before = await chatter.hydrate()
    refused = await chatter.submit("words=2", id=before["messages"][-1]["id"], trigger=trigger)
    assert (refused.status_code, list(refused.json())) == (409, ["error"])
    assert await chatter.hydrate() == before


async def test_a_get_says_which_address_reads(chatter: Chatter) -> None:
    response = await chatter.http.get(f"/api/chat?id={chatter.id}")
    assert response.status_code == 405
    assert "api/chat-stream" in response.json()["error"]
    assert response["Allow"]


async def test_await_mode_answers_at_the_end(chatter: Chatter) -> None:
    view = SendView.as_view(mode="await")

    async def post(body: dict[str, Any]) -> Any:
        request = AsyncRequestFactory().post(
            f"/api/chat?id={chatter.id}", body, content_type="application/json"
        )
        request.session = await chatter.http.asession()  # type: ignore[attr-defined]
        request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]
        return await view(request)

    message = {"id": "m-1", "role": "user", "parts": [{"type": "text", "content": "words=3"}]}
    response = await post({"messages": [message]})
    assert response.status_code == 200
    assert await chatter.texts() == [("user", "words=3"), ("assistant", words(3))]

    sdk = {"id": "m-2", "role": "user", "parts": [{"type": "text", "text": "words=2"}]}
    pointed = await post({"id": chatter.id, "messages": [sdk], "trigger": "submit-message"})
    assert pointed.status_code == 200
    assert pointed["Location"].startswith("/api/chat-stream?")
    body = b"".join([piece async for piece in pointed.streaming_content])
    assert orjson.loads(body) == {
        "streamUrl": pointed["Location"],
        "finalOffset": (await chatter.hydrate())["offset"],
    }


def test_runs_live_on_one_loop_of_the_process() -> None:
    assert loop.running_loop() is loop.running_loop()
