"""The admin: facts can be found and looked at, not changed."""

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import AsyncClient
from django.urls import reverse

from durable_chat.models import Conversation, Message, Run
from tests.conftest import Chatter, the_run
from tests.test_recovery import doomed


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


async def acting(client: AsyncClient, action: str, *run_ids: str) -> str:
    """What the admin says after an action on these runs."""
    asked = {"action": action, "_selected_action": run_ids}
    page = await client.post(reverse("admin:durable_chat_run_changelist"), asked, follow=True)
    assert page.status_code == 200
    return " ".join(str(message) for message in page.context["messages"])


async def listed(client: AsyncClient, **query: str) -> str:
    page = await client.get(reverse("admin:durable_chat_run_changelist"), query)
    assert page.status_code == 200
    return str(page.content.decode())


async def test_the_list_shows_who_holds_a_run_and_for_how_long(staff: AsyncClient, chatter: Chatter) -> None:
    process = await doomed(chatter.id, "writing")
    shown = await listed(staff, state="running")
    for fact in ("running", "doomed", "s left", f">{process.claim.epoch}<"):
        assert fact in shown
    await process.dies()
    assert "expired" in await listed(staff, state="running")
    assert "admin.js" in shown


async def test_a_run_is_stopped(staff: AsyncClient, chatter: Chatter) -> None:
    await chatter.send("words=1000 delay=50")
    running = await the_run(chatter.id)
    before = await Run.objects.exclude(pk=running.pk).afirst()
    assert before is not None
    assert await acting(staff, "stop", running.pk, before.pk) == (
        "1 run was asked to stop. 1 run was over already."
    )
    await chatter.idle()
    assert (await the_run(chatter.id)).state == "stopped"


async def test_a_dead_run_is_recovered_and_a_living_one_left_alone(
    staff: AsyncClient, chatter: Chatter
) -> None:
    process = await doomed(chatter.id, "writing")
    assert "1 run was left alone" in await acting(staff, "recover", process.claim.run_id)
    await process.dies()
    assert await acting(staff, "recover", process.claim.run_id) == "1 run was recovered."
    assert (await the_run(chatter.id)).state == "interrupted"


async def test_who_may_only_look_can_do_nothing(staff: AsyncClient, chatter: Chatter) -> None:
    await chatter.send("words=1000 delay=50")
    running = await the_run(chatter.id)
    looker = await get_user_model().objects.acreate(username="looker", is_staff=True)
    await looker.user_permissions.aadd(await Permission.objects.aget(codename="view_run"))
    client = AsyncClient()
    await client.aforce_login(looker)
    assert running.pk in await listed(client)
    assert "asked to stop" not in await acting(client, "stop", running.pk)
    assert not (await the_run(chatter.id)).stop_requested
    await acting(staff, "stop", running.pk)


async def test_a_conversation_leads_to_its_runs(staff: AsyncClient, chatter: Chatter) -> None:
    link = f"{reverse('admin:durable_chat_run_changelist')}?conversation__id__exact={chatter.id}"
    for page in ("changelist", "change"):
        arguments = [chatter.id] if page == "change" else []
        shown = await staff.get(reverse(f"admin:durable_chat_conversation_{page}", args=arguments))
        assert f'href="{link}"' in shown.content.decode()
    assert (await the_run(chatter.id)).pk in await listed(staff, conversation__id__exact=chatter.id)


async def test_a_conversation_at_rest_shows_no_cross(staff: AsyncClient, chatter: Chatter) -> None:
    page = await staff.get(reverse("admin:durable_chat_conversation_changelist"))
    assert chatter.id in page.content.decode()
    assert "icon-no" not in page.content.decode()
