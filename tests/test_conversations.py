"""Conversations: created with their stream, seen by their owner alone, erased with their bytes."""

import functools
import json
from typing import Any
from unittest.mock import ANY

import pytest
from django.contrib.auth import get_user_model
from django.core.serializers import deserialize
from django.db import connection, connections
from django.test import override_settings

from durable_chat import backends, snapshot
from durable_chat.connections import in_database
from durable_chat.messages import Prompt, fold
from durable_chat.models import Conversation, Message, Run, Tombstone, new_id
from durable_chat.runs import loop, tombs
from durable_chat.runs.execute import Execution
from durable_chat.streams.client import StreamClient
from durable_chat.streams.embedded import process
from durable_chat.streams.protocol.errors import Forbidden, StreamNotFound, Unavailable
from tests.conftest import Chatter, words
from tests.test_recovery import doomed

ROUTES = [
    ("get", "/api/conversations/{id}"),
    ("patch", "/api/conversations/{id}"),
    ("delete", "/api/conversations/{id}"),
    ("post", "/api/chat?id={id}"),
    ("get", "/api/chat-stream?id={id}&offset=-1"),
    ("get", "/api/chat-stream?id={id}&offset=-1&live=sse"),
    ("get", "/api/chat-stream?id={id}&offset=-1&run={run}"),
    ("get", "/api/chat/{id}/stream"),
    ("post", "/api/chat/{id}/stop"),
    ("get", "/api/conversations/{id}/members"),
    ("post", "/api/conversations/{id}/members"),
    ("patch", "/api/conversations/{id}/members/ada"),
    ("delete", "/api/conversations/{id}/members/ada"),
]
HELLO = {"messages": [{"id": "m-2", "role": "user", "parts": [{"type": "text", "content": "hi"}]}]}


async def test_a_new_conversation_has_its_stream(chatter: Chatter, streams: StreamClient) -> None:
    assert (await streams.head(f"chat-{chatter.id}")).content_type == "application/json"


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_stranger_is_told_what_is_told_of_what_is_not_there(
    chatter: Chatter, method: str, path: str, slash: str
) -> None:
    await chatter.send("words=1")
    await chatter.idle()
    run = await Run.objects.aget()
    stranger = Chatter()
    await stranger.begin()
    answers = []
    for conversation_id in (chatter.id, "nothing-here"):
        url = path.format(id=conversation_id, run=run.pk)
        url = url.replace("?", f"{slash}?") if "?" in url else url + slash
        call = getattr(stranger.http, method)
        body = {} if method == "get" else {"data": HELLO, "content_type": "application/json"}
        response = await call(url, **body)
        answers.append((response.status_code, response.content, response["Content-Type"]))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    assert await chatter.texts() == [("user", "words=1"), ("assistant", words(1))]


async def test_the_list_is_the_visitors_own(chatter: Chatter) -> None:
    second = await chatter.begin(title="Second")
    stranger = Chatter()
    await stranger.begin()
    listed = (await chatter.http.get("/api/conversations")).json()["conversations"]
    assert [conversation["id"] == second for conversation in listed] == [True, False]
    assert listed[0]["title"] == "Second"


async def test_a_signed_in_user_owns_what_they_begin(chatter: Chatter) -> None:
    user = await get_user_model().objects.acreate(username="ada")
    signed_in = Chatter()
    await signed_in.http.aforce_login(user)
    await signed_in.begin()
    conversation = await Conversation.objects.aget(pk=signed_in.id)
    assert (conversation.owner_id, conversation.visitor) == (user.pk, "")
    elsewhere = Chatter()
    await elsewhere.http.aforce_login(user)
    assert (await elsewhere.http.get(f"/api/conversations/{signed_in.id}")).status_code == 200


async def test_a_clients_own_id(chatter: Chatter) -> None:
    assert await chatter.begin(id="my-chat_1") == "my-chat_1"
    again = await chatter.post("/api/conversations", {"id": "my-chat_1"})
    assert (again.status_code, list(again.json())) == (409, ["error"])
    stranger = Chatter()
    assert await stranger.begin(id="my-chat_1") != "my-chat_1"


@pytest.mark.parametrize(
    "body",
    [
        {"id": "no spaces"},
        {"id": 7},
        {"id": "x" * 129},
        {"id": "a\n"},
        {"title": 7},
        {"title": "x" * 201},
        {"metadata": []},
    ],
)
async def test_what_cannot_be_created(chatter: Chatter, body: dict[str, Any]) -> None:
    response = await chatter.post("/api/conversations", body)
    assert (response.status_code, list(response.json())) == (400, ["error"])
    assert await Conversation.objects.acount() == 1


async def test_rename(chatter: Chatter) -> None:
    response = await chatter.http.patch(
        f"/api/conversations/{chatter.id}",
        {"title": "New", "metadata": {"a": 1}},
        content_type="application/json",
    )
    assert response.status_code == 200
    hydrated = await chatter.hydrate()
    assert (hydrated["title"], hydrated["metadata"]) == ("New", {"a": 1})


async def test_deletion_stops_the_run_and_erases_rows_and_stream(
    chatter: Chatter, streams: StreamClient
) -> None:
    await chatter.send("words=1000 delay=10")
    response = await chatter.http.delete(f"/api/conversations/{chatter.id}")
    assert response.status_code == 204
    await chatter.idle()
    with pytest.raises(StreamNotFound):
        await streams.head(f"chat-{chatter.id}")
    for model in (Conversation, Message, Run):
        assert not await model.objects.aexists()
    assert (await Tombstone.objects.aget()).erased_at is not None


async def test_a_deleted_id_can_be_begun_anew(chatter: Chatter, streams: StreamClient) -> None:
    await chatter.begin(id="again")
    await chatter.send("words=3")
    await chatter.idle()
    await chatter.http.delete("/api/conversations/again")
    await chatter.begin(id="again")
    assert await chatter.chunks() == []
    await chatter.send("words=1")
    await chatter.idle()
    assert await chatter.texts() == [("user", "words=1"), ("assistant", words(1))]


class Away:
    """The streams service, out of order as long as `away` is set."""

    def __init__(self) -> None:
        self.away = True

    async def __call__(self, request: Any) -> Any:
        if self.away:
            raise Unavailable("away")
        return await process.handle(request)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Away:
    service = Away()
    monkeypatch.setattr(backends, "get_streams", lambda: StreamClient(service))
    return service


@pytest.mark.parametrize("first", ["read", "send"])
async def test_a_conversation_begun_while_the_service_was_away(site: None, service: Away, first: str) -> None:
    chatter = Chatter()
    await chatter.begin()
    unavailable = await chatter.http.get(f"/api/chat-stream?id={chatter.id}&offset=-1")
    assert unavailable.status_code == 503
    assert unavailable["Retry-After"]
    service.away = False
    if first == "read":
        response = await chatter.http.get(f"/api/chat-stream?id={chatter.id}&offset=-1")
        assert (response.status_code, response.json()) == (200, [])
    assert (await chatter.send("words=2")).status_code == 202
    await chatter.idle()
    assert await chatter.texts() == [("user", "words=2"), ("assistant", words(2))]


async def test_a_stream_that_could_not_be_erased_is_erased_later(chatter: Chatter, service: Away) -> None:
    service.away = False
    await chatter.begin(id="buried")
    await chatter.send("words=3")
    await chatter.idle()
    service.away = True
    assert (await chatter.http.delete("/api/conversations/buried")).status_code == 204
    assert (await Tombstone.objects.aget()).erased_at is None
    await chatter.begin(id="buried")
    service.away = False
    response = await chatter.http.get("/api/chat-stream?id=buried&offset=-1")
    assert response.json() == []  # nothing of the first one shows in its successor
    await loop.call(tombs.erase)
    assert not await Tombstone.objects.filter(erased_at=None).aexists()
    with pytest.raises(StreamNotFound):
        await backends.get_streams().head("chat-buried")


async def test_a_stream_that_may_not_be_erased_holds_no_other_up(
    streams: StreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def service(request: Any) -> Any:
        if request.path == "chat-locked":
            raise Forbidden
        return await process.handle(request)

    monkeypatch.setattr(backends, "get_streams", lambda: StreamClient(service))
    await streams.create("chat-old")
    for path in ("chat-old", "chat-locked"):  # the newest is tried first
        await Tombstone.objects.acreate(path=path)
    await loop.call(tombs.erase)
    left = [path async for path in Tombstone.objects.filter(erased_at=None).values_list("path", flat=True)]
    assert left == ["chat-locked"]
    with pytest.raises(StreamNotFound):
        await streams.head("chat-old")


async def test_a_fixture_makes_no_stream(site: None, streams: StreamClient) -> None:
    at = "2026-01-01T00:00:00Z"
    fields = {"stream_path": "chat-raw", "created_at": at, "updated_at": at}
    rows = [{"model": "durable_chat.conversation", "pk": "raw", "fields": fields}]
    await in_database(lambda: [loaded.save() for loaded in deserialize("python", rows)])
    with pytest.raises(StreamNotFound):
        await streams.head("chat-raw")


async def test_the_writer_of_a_deleted_conversation_does_not_join_its_successor(chatter: Chatter) -> None:
    await chatter.begin(id="mine")
    zombie = await doomed("mine", "started")
    await chatter.http.delete("/api/conversations/mine")
    await chatter.begin(id="mine")
    with pytest.raises(StreamNotFound):
        await zombie.producer.append([{"type": "CUSTOM", "name": "zombie", "value": None}])
    await chatter.send("words=2")
    await chatter.idle()
    assert await chatter.texts() == [("user", "words=2"), ("assistant", words(2))]


async def test_a_run_whose_conversation_is_deleted_leaves_no_stream(chatter: Chatter) -> None:
    claim = (await doomed(chatter.id, "claimed")).claim
    await chatter.http.delete(f"/api/conversations/{chatter.id}")
    prompt = Prompt(chatter.id, claim.run_id, claim.messages, {})

    async def run() -> None:
        streams, provider = backends.get_streams(), backends.get_provider()
        await Execution(claim, prompt, streams=streams, provider=provider).run()

    await loop.call(run)
    with pytest.raises(StreamNotFound):
        await backends.get_streams().head(claim.stream_path)


async def test_saving_a_row_that_was_loaded_earlier_undoes_nothing(chatter: Chatter) -> None:
    loaded = await Conversation.objects.aget(pk=chatter.id)
    await chatter.send("words=2")
    await chatter.idle()
    before = await chatter.hydrate()
    loaded.title = "New"
    await loaded.asave()
    assert await chatter.hydrate() == before | {"title": "New", "updatedAt": ANY}
    await chatter.send("words=3")
    await chatter.idle()
    assert [text for _, text in await chatter.texts()] == ["words=2", words(2), "words=3", words(3)]
    assert (await chatter.hydrate())["messages"] == [
        message.as_json() | {"createdAt": ANY} for message in fold(await chatter.chunks())
    ]


async def test_who_signs_in_keeps_what_they_began(chatter: Chatter) -> None:
    user = await get_user_model().objects.acreate_user("ada", password="secret")
    await chatter.http.alogin(username="ada", password="secret")
    assert [row["id"] for row in (await chatter.http.get("/api/conversations")).json()["conversations"]] == [
        chatter.id
    ]
    elsewhere = Chatter()
    await elsewhere.http.aforce_login(user)
    assert (await elsewhere.http.get(f"/api/conversations/{chatter.id}")).status_code == 200


@pytest.mark.parametrize(
    ("metadata", "status"),
    [({"a": "x" * 2_000_000}, 413), ({"a": functools.reduce(lambda inner, _: [inner], range(300), [])}, 400)],
)
async def test_metadata_that_cannot_be_shown_again(chatter: Chatter, metadata: Any, status: int) -> None:
    response = await chatter.http.post(
        "/api/conversations", json.dumps({"metadata": metadata}), content_type="application/json"
    )
    assert (response.status_code, list(response.json())) == (status, ["error"])
    assert (await chatter.http.get("/api/conversations")).status_code == 200


async def test_odd_requests_are_the_callers_mistake(chatter: Chatter) -> None:
    many = "&".join(f"p{number}=1" for number in range(1100))
    for path, status in (
        ("/api/conversations/a%00b", 404),
        (f"/api/chat-stream?id={chatter.id}&run=%00", 404),
        (f"/api/chat?id={chatter.id}&{many}", 405),
        (f"/api/conversations?{many}", 200),
        (f"/api/chat-stream?id={chatter.id}&{many}", 400),
    ):
        response = await chatter.http.get(path)
        assert response.status_code == status, path
        assert response["Content-Type"] == "application/json"


async def test_rows_are_readable_and_deletable_while_the_service_is_away(
    chatter: Chatter, service: Away
) -> None:
    service.away = False
    await (await doomed(chatter.id, "writing")).dies()
    service.away = True
    assert (await chatter.hydrate())["messages"][0]["id"] == "m-1"
    assert (await chatter.send("words=1")).status_code == 503
    assert (await chatter.http.delete(f"/api/conversations/{chatter.id}")).status_code == 204


async def test_a_lost_stream_does_not_hold_the_conversation(chatter: Chatter, streams: StreamClient) -> None:
    await (await doomed(chatter.id, "writing")).dies()
    await streams.delete(f"chat-{chatter.id}")
    assert (await chatter.hydrate())["activeRun"] is None
    assert (await chatter.http.delete(f"/api/conversations/{chatter.id}")).status_code == 204


async def test_a_host_with_atomic_requests(chatter: Chatter) -> None:
    connections["default"].settings_dict["ATOMIC_REQUESTS"] = True
    try:
        assert (await chatter.send("words=2")).status_code == 202
        await chatter.idle()
        assert await chatter.texts() == [("user", "words=2"), ("assistant", words(2))]
    finally:
        connections["default"].settings_dict["ATOMIC_REQUESTS"] = False


@override_settings(DURABLE_CHAT={"CREATE_ON_SEND": True})
async def test_create_on_send(site: None) -> None:
    chatter = Chatter()
    chatter.id = "unheard-of"
    assert (await chatter.send("words=2")).status_code == 202
    await chatter.idle()
    assert await chatter.texts() == [("user", "words=2"), ("assistant", words(2))]
    stranger = Chatter()
    stranger.id = "unheard-of"
    assert (await stranger.send("words=2")).status_code == 404


def test_ids_sort_by_time_and_repeat_never() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [id[:10] for id in ids] == sorted(id[:10] for id in ids)
    assert all(len(id) == 26 for id in ids)


def test_what_hydration_costs_grows_with_the_messages_and_not_with_their_answers_too(site: None) -> None:
    """In steps of SQLite's virtual machine, which are the same on every machine."""

    def steps(turns: int) -> int:
        conversation = Conversation.objects.create()
        messages = [
            Message(conversation=conversation, client_id=str(place), role="user", position=place)
            for place in range(turns)
        ]
        Message.objects.bulk_create(messages)
        Run.objects.bulk_create(
            Run(conversation=conversation, message=message, trigger="send", state=Run.State.DONE, epoch=1)
            for message in messages
        )
        taken = []
        connection.connection.set_progress_handler(lambda: taken.append(None), 1)
        try:
            snapshot.take(conversation.pk)
        finally:
            connection.connection.set_progress_handler(None, 0)
        return len(taken)

    assert steps(400) < 12 * steps(40)
