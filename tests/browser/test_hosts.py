"""Other hosts than the demo, other servers, and servers that die."""

from collections.abc import Callable, Mapping
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import Tab, Visitor, words
from tests.live import free_port, live_server


def test_two_chats_on_one_page_below_a_prefix(arrive: Callable[..., Visitor], env: Mapping[str, str]) -> None:
    with live_server(env={**env, "DJANGO_SETTINGS_MODULE": "tests.browser.host_settings"}) as base:
        page = arrive(base, color_scheme="dark").visit()
        chats = page.locator("durable-chat")
        ground = "chat => getComputedStyle(chat).backgroundColor"
        assert page.locator(".durable-chat").first.evaluate(ground) == "rgb(255, 255, 255)"  # as its host
        first, second = (Tab(page, chats.nth(number)).ready() for number in (0, 1))
        first.send("words=80 delay=20")
        second.send("words=60 delay=20")
        expect(first.answer).to_contain_text("w10 ")
        expect(second.answer).to_contain_text("w10 ")
        page.reload()
        for tab, prompt, count in ((first, "words=80 delay=20", 80), (second, "words=60 delay=20", 60)):
            tab.ready().idle()
            assert tab.texts() == [("user", prompt), ("assistant", words(count))]
        page.close()


def test_behind_daphne(arrive: Callable[..., Visitor], env: Mapping[str, str]) -> None:
    with live_server("daphne", env=env) as base:
        tab = arrive(base).begin()
        tab.send("words=100 delay=20")
        expect(tab.answer).to_contain_text("w20 ")
        tab.reload()
        tab.idle()
        assert tab.texts() == [("user", "words=100 delay=20"), ("assistant", words(100))]
        tab.page.close()


def test_an_address_that_leads_nowhere(arrive: Callable[..., Visitor], env: Mapping[str, str]) -> None:
    with live_server(env={**env, "DEBUG": "false"}) as base:
        visitor = arrive(base)
        visitor.tolerated = ("404",)
        page = visitor.visit("/c/somebody-elses/")
        expect(page.get_by_role("heading", name="There is nothing here")).to_be_visible()
        page.get_by_role("link", name="your own conversations").click()
        expect(page.get_by_role("heading", name="A chat that forgets nothing")).to_be_visible()
        page.close()


def test_a_server_that_is_restarted_in_the_middle(
    arrive: Callable[..., Visitor], env: Mapping[str, str], tmp_path: Path
) -> None:
    """The page stays open, and learns how far the answer came and that it goes no further."""
    port = free_port()
    env = {**env, "LEASE_SECONDS": "1"}
    with live_server(env=env, directory=tmp_path, port=port) as base:
        visitor = arrive(base)
        visitor.tolerated = ("ERR_CONNECTION", "ERR_INCOMPLETE", "ERR_EMPTY", "ERR_SOCKET")
        tab = visitor.begin()
        tab.send("words=2000 delay=20")
        expect(tab.answer).to_contain_text("w20 ")
    expect(tab.root.get_by_text("Connection lost")).to_be_visible()
    with live_server(env=env, directory=tmp_path, port=port):
        tab.idle()
        (_, asked), (_, answered), *_ = tab.texts()
        assert asked == "words=2000 delay=20"
        assert words(2000).startswith(answered)
        assert answered.startswith(words(20))
        tab.reload()
        assert tab.texts()[:2] == [("user", asked), ("assistant", answered)]
        tab.send("words=3")
        expect(tab.answer).to_have_text(words(3))
        tab.page.close()
