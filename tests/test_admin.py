"""The admin: facts can be found and looked at, not changed."""

import pytest
from django.contrib.auth import get_user_model
from django.test import AsyncClient
from django.urls import reverse

from durable_chat.models import Conversation, Message, Run
from tests.conftest import Chatter


@pytest.fixture
async def staff(chatter: Chatter) -> AsyncClient:
    await chatter.begin(title="About cats")
    await chatter.send("words=2 <b>cats</b>")
    await chatter.idle()
    client = AsyncClient()
    user = await get_user_model().objects.acreate(username="root", is_staff=True, is_superuser=True)
    await client.aforce_login(user)
    return client


@pytest.mark.parametrize("model", ["conversation", "message", "run"])
async def test_lists_can_be_searched_and_filtered(staff: AsyncClient, chatter: Chatter, model: str) -> None:
    url = reverse(f"admin:durable_chat_{model}_changelist")
    page = await staff.get(url, {"q": "About cats"})
    assert page.status_code == 200
    assert b"0 results" not in page.content
    assert b"About cats" in page.content
    nothing = await staff.get(url, {"q": "no such thing"})
    assert b"0 results" in nothing.content


async def test_a_conversation_and_its_owner_can_be_deleted_but_no_fact_alone(
    staff: AsyncClient, chatter: Chatter
) -> None:
    message = await Message.objects.afirst()
    assert message is not None
    alone = await staff.post(reverse("admin:durable_chat_message_delete", args=[message.pk]), {"post": "yes"})
    assert alone.status_code == 403
    owner = await get_user_model().objects.acreate(username="ada")
    await Conversation.objects.filter(pk=chatter.id).aupdate(owner=owner)
    await staff.post(reverse("admin:auth_user_delete", args=[owner.pk]), {"post": "yes"})
    assert not await Conversation.objects.filter(pk=chatter.id).aexists()
    other = await chatter.begin()
    await chatter.send("words=1")
    await chatter.idle()
    await staff.post(reverse("admin:durable_chat_conversation_delete", args=[other]), {"post": "yes"})
    assert not await Conversation.objects.filter(pk=other).aexists()


async def test_facts_cannot_be_changed(staff: AsyncClient, chatter: Chatter) -> None:
    message, run = await Message.objects.afirst(), await Run.objects.afirst()
    assert message is not None
    assert run is not None
    for name, row in (("message", message), ("run", run)):
        url = reverse(f"admin:durable_chat_{name}_change", args=[row.pk])
        page = await staff.get(url)
        assert page.status_code == 200
        assert b'<input type="text"' not in page.content.split(b'id="content"')[1]
    url = reverse("admin:durable_chat_conversation_change", args=[chatter.id])
    page = await staff.get(url)
    assert b"About cats" in page.content
    assert b"&lt;b&gt;cats&lt;/b&gt;" in page.content
    changed = await staff.post(url, {"title": "New", "metadata": "{}", "epoch": "99", "owner": ""})
    assert changed.status_code in (200, 302)
    hydrated = await chatter.hydrate()
    assert len(hydrated["messages"]) == 2
