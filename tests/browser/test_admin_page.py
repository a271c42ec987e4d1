"""The admin's list of runs, as staff look at it."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Tab, Visitor
from tests.live import LiveServer

PASSWORD = "only-for-tests"


@pytest.fixture
def server(env: Mapping[str, str], tmp_path: Path) -> Iterator[LiveServer]:
    server = LiveServer(tmp_path, env=env)
    server.migrate()
    named = ("createsuperuser", "--noinput", "--username=root", "--email=root@example.com")
    server.manage(*named, DJANGO_SUPERUSER_PASSWORD=PASSWORD)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def runs(visitor: Visitor) -> Page:
    page = visitor.visit("/admin/login/?next=/admin/durable_chat/run/")
    page.get_by_label("Username").fill("root")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#result_list")).to_be_visible()
    return page


def test_the_list_renews_itself_and_stops_runs(server: LiveServer, arrive: Callable[..., Visitor]) -> None:
    chatting, staff = arrive(server.base), arrive(server.base)
    tab: Tab = chatting.begin()
    tab.send("words=5000 delay=20")
    expect(tab.answer).to_contain_text("w5 ")
    page = runs(staff)
    page.evaluate("window.never = 'reloaded'")
    first = page.locator("#result_list tbody tr").filter(has_text="s left")
    expect(first.locator(".field-state")).to_have_text("Running")
    tab.stop_button.click()
    expect(page.locator(".field-state")).to_have_text(["Stopped"])
    tab.idle()
    tab.send("words=5000 delay=20")
    expect(page.locator(".field-state")).to_have_text(["Running", "Stopped"])
    assert page.evaluate("window.never") == "reloaded"
    page.locator("#result_list tbody tr").first.get_by_role("checkbox").check()
    page.get_by_label("Action:").select_option("stop")
    page.locator("#changelist-form button[name=index]").click()
    expect(page.get_by_text("1 run was asked to stop.")).to_be_visible()
    expect(page.locator(".field-state")).to_have_text(["Stopped", "Stopped"])
    tab.idle()
    staff.complaints.clear()  # the admin's own scripts cannot live under so strict a policy; ours does
    page.close()
    tab.page.close()
