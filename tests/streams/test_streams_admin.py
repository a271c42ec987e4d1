"""The streams in the admin: a page for staff, to look at and nothing else."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin import AdminSite
from django.contrib.auth.models import User
from django.test import Client, modify_settings, override_settings
from django.urls import path

from durable_chat.streams.embedded import admin, process
from durable_chat.streams.embedded.postgres import PostgresStore
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.stores.base import Batch, NewStream
from tests.streams.postgres import Schema

site = AdminSite(name="staff")
admin.add_to(site)
urlpatterns = [path("staff/", site.urls)]

INDEX, PAGE = "/staff/", "/staff/durable-streams/"

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _host(tmp_path: Path) -> Iterator[None]:
    installed = modify_settings(INSTALLED_APPS={"append": "durable_chat.streams.embedded"})
    settings = override_settings(
        ROOT_URLCONF=__name__, DURABLE_STREAMS={"SQLITE_PATH": tmp_path / "streams.sqlite3"}
    )
    with installed, settings:
        yield
    process.close()


@pytest.fixture
def visit(client: Client) -> Callable[..., Any]:
    """Visit as somebody from the staff."""
    client.force_login(User.objects.create_user("ada", is_staff=True))
    return client.get


def create(*streams: tuple[str, NewStream]) -> None:
    async def all_of_them() -> None:
        for name, new in streams:
            await process.store().create(name, new)

    asyncio.run(all_of_them())


def test_the_index_leads_to_it(visit: Callable[..., Any]) -> None:
    assert f'href="{PAGE}"' in visit(INDEX).content.decode()
    assert visit(PAGE).status_code == 200


def test_it_says_what_the_streams_are(visit: Callable[..., Any]) -> None:
    create(
        ("chat/<1>", NewStream("application/json", Expiry(ttl=3600), Batch(b"1,2", 2))),
        ("done", NewStream("text/plain", batch=Batch(b"x" * 2048, 2048), closed=True)),
        ("until", NewStream("text/plain", Expiry(expires_at="2999-01-01T00:00:00Z"))),
        ("fork", NewStream("", fork=Fork("until"))),
    )
    shown = visit(PAGE).content.decode()
    for said in (
        "chat/&lt;1&gt;",
        "application/json",
        "3600 s after its last use",
        "2.0\N{NO-BREAK SPACE}KB",
        "until 2999-01-01T00:00:00Z",
        "<td>until</td>",
    ):
        assert said in shown
    assert "<1>" not in shown


def test_nothing_on_it_can_be_changed(visit: Callable[..., Any], client: Client) -> None:
    create(("a", NewStream("text/plain", batch=Batch(b"content", 7))))
    shown = visit(PAGE).content.decode()
    main = shown[shown.index('id="content-main"') :]
    assert 'method="post"' not in main
    assert "content<" not in main
    for method in (client.post, client.put, client.delete, client.patch):
        assert method(PAGE).status_code == 405


def test_it_is_searched_by_the_beginning_of_a_path_and_turned_like_pages(
    visit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "PAGE", 3)
    names = [f"chat-{number} & more?" for number in range(7)]
    create(*((name, NewStream("text/plain")) for name in [*names, "other"]))
    seen: list[str] = []
    url = f"{PAGE}?q=chat-"
    while url:
        response = visit(url)
        assert len(response.context["streams"]) <= 3
        seen += [stream["path"] for stream in response.context["streams"]]
        further = response.context["further"]
        url = f"{PAGE}?{further}" if further else ""
    assert seen == names
    assert "No stream whose path begins so" in visit(f"{PAGE}?q=nothing").content.decode()


def test_the_store_may_be_unavailable(visit: Callable[..., Any], tmp_path: Path) -> None:
    with override_settings(DURABLE_STREAMS={"SQLITE_PATH": tmp_path / "missing" / "streams.sqlite3"}):
        response = visit(PAGE)
    assert response.status_code == 503
    assert "unavailable" in response.content.decode()


def test_a_name_that_the_database_cannot_look_for(
    visit: Callable[..., Any], schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(PostgresStore(schema.parameters)) as store:
        monkeypatch.setattr(process, "store", lambda: store)
        for query in ("q=%00", "after=%00"):
            response = visit(f"{PAGE}?{query}")
            assert response.status_code == 400
            assert "cannot hold that name" in response.content.decode()
        assert visit(PAGE).status_code == 200


@pytest.mark.parametrize("user", [None, {"is_staff": False}, {"is_staff": True, "is_active": False}])
def test_it_is_for_staff_only(client: Client, user: dict[str, bool] | None) -> None:
    create(("secret", NewStream("text/plain")))
    if user is not None:
        client.force_login(User.objects.create_user("eve", **user))
    response = client.get(PAGE)
    assert (response.status_code, response.url) == (302, f"/staff/login/?next={PAGE}")
    assert "secret" not in response.content.decode()
