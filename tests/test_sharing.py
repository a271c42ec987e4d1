"""Sharing: members by role, who wrote what, and a permission of the host's own, async or not."""

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import AsyncClient, Client
from django.urls import reverse

from durable_chat.messages import fold
from durable_chat.models import Conversation, Member, Message, Visitor
from durable_chat.testing import drain
from tests.conftest import Chatter, somebody, words
from tests.test_read import bare
from tests.test_read import django as django_door
from tests.test_websocket import Socket


async def let_in(owner: Chatter, name: str, role: str = "reader", **fields: Any) -> Chatter:
    """A new user, made a member of the owner's conversation."""
    member = await somebody(name, **fields)
    member.id = owner.id
    response = await owner.post(members(owner), {"user": name, "role": role})
    assert response.status_code == 201, response.content
    return member


def members(chatter: Chatter, name: str = "") -> str:
    return f"/api/conversations/{chatter.id}/members" + (f"/{name}" if name else "")


async def statuses(chatter: Chatter) -> dict[str, int]:
    """What each action comes to."""
    path = f"/api/conversations/{chatter.id}"
    return {
        "read": (await chatter.http.get(path)).status_code,
        "live": (await chatter.http.get(f"/api/chat-stream?id={chatter.id}&offset=-1")).status_code,
        "send": (await chatter.send("words=1")).status_code,
        "stop": (await chatter.post(f"/api/chat/{chatter.id}/stop", {})).status_code // 100,
        "share": (await chatter.http.get(f"{path}/members")).status_code,
        "delete": (await chatter.http.delete(path)).status_code,
    }


NOTHING = dict.fromkeys(("read", "live", "send", "share", "delete"), 404) | {"stop": 4}
READER = NOTHING | {"read": 200, "live": 200}
WRITER = READER | {"send": 202, "stop": 2}
OWNER = WRITER | {"share": 200, "delete": 204}


async def test_what_is_no_username_is_nobodys(ada: Chatter) -> None:
    """PostgreSQL refuses to look for a NUL."""
    assert (await ada.http.delete(members(ada, "%00"))).status_code == 404
    role = {"data": {"role": "writer"}, "content_type": "application/json"}
    assert (await ada.http.patch(members(ada, "%00"), **role)).status_code == 404


@pytest.mark.parametrize(("role", "granted"), [("reader", READER), ("writer", WRITER)])
async def test_a_member_may_what_the_role_grants(ada: Chatter, role: str, granted: dict[str, int]) -> None:
    member = await let_in(ada, "bob", role)
    assert await statuses(member) == granted
    await ada.idle()
    assert (await ada.http.delete(members(ada, "bob"))).status_code == 204
    assert await statuses(member) == NOTHING
    assert await statuses(ada) == OWNER


async def test_members_are_listed_changed_and_removed(ada: Chatter) -> None:
    await let_in(ada, "bob", first_name="Bob")
    listed = (await ada.http.get(members(ada))).json()
    assert listed == {"members": [{"user": "bob", "name": "Bob", "role": "reader"}]}
    again = await ada.post(members(ada), {"user": "bob", "role": "writer"})
    assert (again.status_code, again.json()["role"]) == (200, "writer")
    patch = {"data": {"role": "reader"}, "content_type": "application/json"}
    changed = await ada.http.patch(members(ada, "bob"), **patch)
    assert (changed.status_code, changed.json()["role"]) == (200, "reader")
    assert (await ada.http.delete(members(ada, "bob") + "/")).status_code == 204
    assert (await ada.http.get(members(ada))).json() == {"members": []}


async def test_who_is_no_member_and_who_is_nobody_are_alike(ada: Chatter) -> None:
    await somebody("carol")
    patch = {"data": {"role": "reader"}, "content_type": "application/json"}
    for method, body in (("patch", patch), ("delete", {})):
        answers = [await getattr(ada.http, method)(members(ada, name), **body) for name in ("carol", "dan")]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].content == answers[1].content
    await somebody("gone", is_active=False)
    answers = [await ada.post(members(ada), {"user": name}) for name in ("gone", "dan")]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].content == answers[1].content


@pytest.mark.parametrize(
    "body", [{}, {"user": 7}, {"user": ""}, {"user": "b\0b"}, {"user": "ada", "role": "owner"}, {"role": []}]
)
async def test_what_is_no_member(ada: Chatter, body: dict[str, Any]) -> None:
    response = await ada.post(members(ada), body)
    assert (response.status_code, list(response.json())) == (400, ["error"])


async def test_the_owner_is_no_member(ada: Chatter) -> None:
    assert (await ada.post(members(ada), {"user": "ada"})).status_code == 409


async def test_an_anonymous_owner_cannot_look_for_users_by_name(chatter: Chatter) -> None:
    await somebody("ada")
    answers = [await chatter.post(members(chatter), {"user": name}) for name in ("ada", "nobody")]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].content == answers[1].content
    assert not await Member.objects.aexists()


async def test_what_is_shared_is_listed(ada: Chatter) -> None:
    bob = await let_in(ada, "bob")
    own = await bob.begin()
    listed = (await bob.http.get("/api/conversations")).json()["conversations"]
    assert {row["id"] for row in listed} == {ada.id, own}
    assert [row["id"] for row in (await ada.http.get("/api/conversations")).json()["conversations"]] == [
        ada.id
    ]


# --- who wrote it ------------------------------------------------------------------------------------------


async def test_a_message_says_who_wrote_it_in_row_hydration_and_stream(ada: Chatter) -> None:
    bob = await let_in(ada, "bob", "writer")
    await ada.send("words=1")
    await ada.idle()
    await bob.submit("words=2")
    await ada.idle()
    signed = [message.get("metadata") for message in (await ada.hydrate())["messages"]]
    bobs, adas = [
        {"author": {"id": str(user.pk), "name": name}}
        for user, name in [
            (await get_user_model().objects.aget(username="bob"), "bob"),
            (await get_user_model().objects.aget(username="ada"), "Ada Lovelace"),
        ]
    ]
    assert [signed[0], signed[2]] == [adas, bobs]
    assert "author" not in str([signed[1], signed[3]])
    assert [m.metadata for m in fold(await ada.chunks()) if m.role == "user"] == [adas, bobs]
    names = Message.objects.order_by("position").values_list("author__username", flat=True)
    assert [name async for name in names] == ["ada", None, "bob", None]
    assert "secret.example" not in str([await ada.hydrate(), await ada.chunks()])


@pytest.mark.parametrize("signed_in", [True, False])
async def test_nobody_writes_in_anothers_name(site: None, signed_in: bool) -> None:
    forger = await somebody("eve") if signed_in else Chatter()
    await forger.begin()
    forged = {"author": {"id": "1", "name": "Ada"}, "mood": "bad"}
    part = {"type": "text", "content": "words=1"}
    message = {"id": "m-1", "role": "user", "parts": [part], "metadata": forged}
    assert (await forger.post(f"/api/chat?id={forger.id}", {"messages": [message]})).status_code == 202
    await forger.idle()
    metadata = (await forger.hydrate())["messages"][0]["metadata"]
    assert metadata["mood"] == "bad"
    assert metadata.get("author", {}).get("name") == ("eve" if signed_in else None)
    assert "Ada" not in str(await forger.chunks())


async def test_a_message_sent_again_by_another_stays_its_authors(ada: Chatter) -> None:
    bob = await let_in(ada, "bob", "writer")
    await ada.send("words=1", id="m-1")
    await ada.idle()
    await bob.send("words=1", id="m-1")
    await ada.idle()
    assert (await ada.hydrate())["messages"][0]["metadata"]["author"]["name"] == "Ada Lovelace"
    assert await ada.texts() == [("user", "words=1"), ("assistant", words(1))]


async def test_a_user_who_is_deleted_leaves_what_they_said(ada: Chatter) -> None:
    bob = await let_in(ada, "bob", "writer")
    await bob.send("words=1")
    await ada.idle()
    user = await get_user_model().objects.aget(username="bob")
    await user.adelete()
    assert not await Member.objects.aexists()
    message = await Message.objects.aget(role="user")
    assert message.author_id is None
    assert await ada.texts() == [("user", "words=1"), ("assistant", words(1))]


async def test_who_signs_in_as_a_member_keeps_both(site: None) -> None:
    """Adoption: what was begun anonymously becomes the user's own, beside what is shared with them."""
    user_model = get_user_model()
    await user_model.objects.acreate_user("bob", password="secret")
    ada = await somebody("ada")
    await ada.begin()
    assert (await ada.post(members(ada), {"user": "bob"})).status_code == 201
    bob = Chatter()
    begun = await bob.begin()
    await bob.http.alogin(username="bob", password="secret")
    listed = (await bob.http.get("/api/conversations")).json()["conversations"]
    assert {row["id"] for row in listed} == {begun, ada.id}


async def test_members_in_the_admin(ada: Chatter) -> None:
    await let_in(ada, "bob")
    staff = AsyncClient()
    root = await get_user_model().objects.acreate(username="root", is_staff=True, is_superuser=True)
    await staff.aforce_login(root)
    page = await staff.get(reverse("admin:durable_chat_conversation_change", args=[ada.id]))
    assert page.status_code == 200
    assert b'name="memberships-0-role"' in page.content


# --- a permission of the host's own ------------------------------------------------------------------------


async def friends(visitor: Visitor, conversation: Conversation, action: str) -> bool:
    """An async one that asks the database."""
    owner = await get_user_model().objects.filter(pk=conversation.owner_id).afirst()
    mine = conversation.owner_id is not None and conversation.owner_id == visitor.user_id
    return mine or (action == "read" and owner is not None and owner.username == "ada")


async def truthy(visitor: Visitor, conversation: Conversation, action: str) -> Any:
    return "yes"


def plain(visitor: Visitor, conversation: Conversation, action: str) -> bool:
    return action == "read" and Member.objects.count() == 0


class Bearing:
    async def __call__(self, visitor: Visitor, conversation: Conversation, action: str) -> bool:
        return action == "read"


bearing = Bearing()


@pytest.mark.parametrize(
    ("name", "granted"),
    [("friends", READER), ("truthy", NOTHING), ("plain", READER), ("bearing", READER)],
)
@pytest.mark.parametrize("door", [bare, django_door], ids=["mounted", "view"])
async def test_a_permission_of_the_hosts_own(
    ada: Chatter, settings: Any, name: str, granted: dict[str, int], door: Any
) -> None:
    settings.DURABLE_CHAT = {"PERMISSION": f"tests.test_sharing.{name}"}
    stranger = await somebody("stranger")
    stranger.id = ada.id
    assert await statuses(stranger) == granted
    async with door(stranger.http, f"/api/chat-stream?id={ada.id}&offset=-1") as answer:
        assert answer.status == granted["read"]
    async with Socket(stranger, f"/ws/chat/{ada.id}") as socket:
        if granted is NOTHING:
            assert await socket.closed_with() == 4404
        else:
            assert await socket.silent()


@pytest.mark.parametrize(("name", "status"), [("friends", 200), ("truthy", 404), ("plain", 200)])
def test_a_permission_of_the_hosts_own_under_wsgi(site: None, settings: Any, name: str, status: int) -> None:
    settings.DURABLE_CHAT = {"PERMISSION": f"tests.test_sharing.{name}"}
    client = Client()
    owner = get_user_model().objects.create(username="ada")
    Conversation.objects.create(id="theirs", owner=owner)
    assert client.get("/api/conversations/theirs").status_code == status
    assert client.get("/api/chat-stream?id=theirs&offset=-1").status_code == status
    assert client.delete("/api/conversations/theirs").status_code == 404
    drain()
