"""Two people in one conversation, each at a browser of their own, and one who is shown out."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Tab, Visitor, words
from tests.live import LiveServer

PASSWORD = "correct horse battery staple"
Arrive: TypeAlias = Callable[..., Visitor]


@pytest.fixture(scope="module")
def site(env: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Where ada and bob may sign in, and live connections are looked at every second."""
    server = LiveServer(tmp_path_factory.mktemp("site"), env={**env, "REAUTHORISE_SECONDS": "1"})
    server.migrate()
    for name in ("ada", "bob"):
        email, password = f"--email={name}@mail.example", {"DJANGO_SUPERUSER_PASSWORD": PASSWORD}
        server.manage(
            "createsuperuser", "--noinput", "--verbosity=0", f"--username={name}", email, **password
        )
    server.start()
    yield server
    server.end()


@pytest.fixture
def ada(arrive: Arrive, site: LiveServer) -> Visitor:
    return signed_in(arrive(site.base), "ada")


@pytest.fixture
def bob(arrive: Arrive, site: LiveServer) -> Visitor:
    return signed_in(arrive(site.base), "bob")


def signed_in(visitor: Visitor, name: str) -> Visitor:
    """By the admin's form, whose page would ask for an icon that is not there."""
    form = visitor.context.request
    form.get("/admin/login/").dispose()
    token = next(c["value"] for c in visitor.context.cookies() if c["name"] == "csrftoken")
    filled = {"username": name, "password": PASSWORD, "csrfmiddlewaretoken": token, "next": "/"}
    assert form.post("/admin/login/", form=filled).ok
    return visitor


def share(tab: Tab, method: str, path: str = "", **body: str) -> int:
    """Ask the members' endpoint from within the owner's page."""
    status: int = tab.page.evaluate(
        """async ([method, path, body]) => {
            const { hydrateUrl, csrfToken } = document.querySelector(".durable-chat").dataset;
            const headers = { "x-csrftoken": csrfToken, "content-type": "application/json" };
            const options = { method, headers, body: method === "DELETE" ? null : JSON.stringify(body) };
            return (await fetch(`${hydrateUrl}/members${path}`, options)).status;
        }""",
        [method, path, body],
    )
    return status


def test_two_people_see_who_says_what(ada: Visitor, bob: Visitor) -> None:
    hers = ada.begin()
    assert share(hers, "POST", user="bob", role="writer") == 201
    hers.send("words=2")
    hers.idle()
    his = bob.open(hers.page.url)
    expect(his.log.get_by_text("ada")).to_be_visible()
    his.send("words=3")
    expect(hers.answer).to_have_text(words(3))
    expect(hers.log.get_by_text("bob")).to_be_visible()
    hers.idle()
    his.idle()
    assert hers.texts() == his.texts()
    expect(hers.log.get_by_text("ada")).to_have_count(0)
    for tab in (hers, his):
        live = signatures(tab)
        tab.reload()
        assert signatures(tab) == live
    assert signatures(hers) == [("You", False), ("bob", True)]
    assert signatures(his) == [("ada", True), ("You", False)]


def signatures(tab: Tab) -> list[tuple[str, bool]]:
    """Under whose name each question stands, and whether the name is for eyes too."""
    found: list[list[object]] = tab.log.locator("[data-role=user] .durable-chat__author").evaluate_all(
        "authors => authors.map(author => [author.textContent.trim(), author.offsetWidth > 1])"
    )
    return [(str(name), bool(visible)) for name, visible in found]


def test_who_is_removed_while_watching_is_told_and_sees_no_more(ada: Visitor, bob: Visitor) -> None:
    bob.tolerated = ("404", "inline style")  # of the debug page that the reload comes to
    hers = ada.begin()
    assert share(hers, "POST", user="bob", role="writer") == 201
    his = bob.open(hers.page.url)
    hers.send("words=3000 delay=20")
    expect(his.answer).to_contain_text("w5 ")
    assert share(hers, "DELETE", "/bob") == 204
    expect(his.root.get_by_role("alert")).to_have_text("This conversation can no longer be read here.")
    his.idle()
    stands = his.answer.text_content()
    seen = len((stands or "").split())
    expect(hers.answer).to_contain_text(f"w{seen + 100} ")
    assert his.answer.text_content() == stands
    hers.stop_button.click()
    hers.idle()
    his.root.get_by_role("button", name="Reload the page").click()
    expect(his.page.get_by_role("heading", name="not found")).to_be_visible()


def test_a_reader_reads_along_and_has_nothing_to_write_with(ada: Visitor, bob: Visitor) -> None:
    hers = ada.begin()
    assert share(hers, "POST", user="bob") == 201
    page = bob.visit(hers.page.url)
    expect(page.get_by_text("not write in it")).to_be_visible()
    expect(page.get_by_role("textbox", name="Message")).to_have_count(0)
    hers.send("words=3")
    expect(Tab(page).answer).to_have_text(words(3))


def test_what_is_shared_is_in_the_list(ada: Visitor, bob: Visitor, tmp_path: Path) -> None:
    hers = ada.begin()
    hers.send("Our trip to words=1")
    hers.idle()
    assert share(hers, "POST", user="bob") == 201
    page = bob.visit("/")
    page.get_by_role("navigation").get_by_text("Our trip to").first.click()
    expect(page).to_have_url(hers.page.url)
