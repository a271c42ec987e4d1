"""Sending while an answer is being written, where the host lets messages wait or interrupt."""

import re
from collections.abc import Callable, Iterator, Mapping

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Tab, Visitor, words
from tests.live import live_server

LONG = "words=3000 delay=20"


@pytest.fixture(scope="module")
def site(env: Mapping[str, str]) -> Iterator[Callable[[str], str]]:
    """The address of a site with this policy."""
    with (
        live_server(env={**env, "WHEN_BUSY": "queue"}) as queue,
        live_server(env={**env, "WHEN_BUSY": "interrupt"}) as interrupt,
    ):
        yield {"queue": queue, "interrupt": interrupt}.__getitem__


@pytest.fixture
def queueing(arrive: Callable[..., Visitor], site: Callable[[str], str]) -> Visitor:
    return arrive(site("queue"))


def line(tab: Tab) -> Locator:
    return tab.root.get_by_role("list", name="Messages that wait").get_by_role("listitem")


def waits(tab: Tab, text: str) -> None:
    """Until it is the last of the line, and the server has it."""
    expect(line(tab).last).to_contain_text(text)
    expect(line(tab).last).not_to_have_attribute("data-pending", "")


def in_line(visitor: Visitor) -> Tab:
    """A new conversation in which two messages wait behind a long answer."""
    tab = visitor.begin()
    tab.send(LONG)
    expect(tab.answer).to_contain_text("w3 ")
    for text in ("words=2", "words=4"):
        tab.send(text)
        waits(tab, text)
    return tab


def test_messages_wait_in_order_and_across_reloads(queueing: Visitor) -> None:
    tab = queueing.begin()
    tab.send(LONG)
    expect(tab.answer).to_contain_text("w3 ")
    expect(tab.input).to_have_accessible_description(re.compile("waits for its turn"))
    for text in ("words=2", "words=4"):
        tab.send(text)
        waits(tab, text)
        expect(tab.input).to_have_value("")
    tab.reload()
    expect(line(tab)).to_have_count(2)
    tab.stop_button.click()
    expect(line(tab)).to_have_count(0)
    expect(tab.answer).to_have_text(words(4))
    tab.idle()
    assert tab.texts()[-4:] == [
        ("user", "words=2"),
        ("assistant", words(2)),
        ("user", "words=4"),
        ("assistant", words(4)),
    ]


def test_a_narrow_page_has_room_for_the_line_and_for_sending(queueing: Visitor) -> None:
    tab = queueing.begin()
    tab.page.set_viewport_size({"width": 320, "height": 600})
    tab.send(LONG)
    expect(tab.answer).to_contain_text("w3 ")
    for text in ("words=2", "words=4"):
        tab.send(text)
        waits(tab, text)
    for each in line(tab).get_by_role("button", name="Withdraw").all():
        expect(each).to_be_in_viewport(ratio=1)  # which what clips it counts in
    expect(tab.send_button).to_be_visible()
    tab.stop_button.click()
    expect(line(tab)).to_have_count(0)
    tab.idle()


def test_a_message_is_withdrawn(queueing: Visitor) -> None:
    tab = in_line(queueing)
    other = queueing.open(tab.page.url)
    expect(line(other)).to_have_count(2)
    for each in (tab, other):  # one that made its line, and one that was rendered with it
        for place, text in enumerate(("words=2", "words=4")):
            withdraw = line(each).nth(place).get_by_role("button", name="Withdraw")
            expect(withdraw).to_have_accessible_description(text)
            expect(line(each).nth(place).get_by_title(text)).to_have_attribute("dir", "auto")
    line(tab).first.get_by_role("button", name="Withdraw").press("Enter")
    expect(line(tab)).to_have_count(1)
    expect(tab.input).to_be_focused()
    expect(tab.input).to_have_value("words=2")
    other.stop_button.click()
    for each in (tab, other):
        expect(line(each)).to_have_count(0)
        each.idle()
        expect(each.answer).to_have_text(words(4))
        assert ("user", "words=2") not in each.texts()


def test_a_message_that_was_withdrawn_elsewhere(queueing: Visitor) -> None:
    """The server's sentence says so, and the line is what the server says."""
    queueing.tolerated = ("409",)
    tab = queueing.begin()
    tab.send(LONG)
    expect(tab.answer).to_contain_text("w3 ")
    tab.send("words=2")
    waits(tab, "words=2")
    other = queueing.open(tab.page.url)
    line(tab).get_by_role("button", name="Withdraw").click()
    expect(line(tab)).to_have_count(0)
    line(other).get_by_role("button", name="Withdraw").click()
    expect(other.root.get_by_role("alert")).to_contain_text("No such message waits here")
    expect(line(other)).to_have_count(0)
    tab.stop_button.click()
    tab.idle()


def test_whoever_stands_on_a_message_whose_turn_comes_goes_on_writing(queueing: Visitor) -> None:
    tab = in_line(queueing)
    line(tab).first.get_by_role("button", name="Withdraw").focus()
    queueing.open(tab.page.url).stop_button.click()
    expect(tab.answer).to_have_text(words(4))
    expect(tab.input).to_be_focused()


def test_a_message_interrupts(arrive: Callable[..., Visitor], site: Callable[[str], str]) -> None:
    tab = arrive(site("interrupt")).begin()
    tab.send(LONG)
    expect(tab.answer).to_contain_text("w3 ")
    expect(tab.input).to_have_accessible_description(re.compile("interrupts it"))
    tab.send("words=2")
    expect(tab.answer).to_have_text(words(2))
    expect(line(tab)).to_have_count(0)
    tab.idle()
    assert tab.texts()[-2:] == [("user", "words=2"), ("assistant", words(2))]


def test_a_stop_that_fails_says_so_and_leaves_the_notice_of_what_was_not_sent(queueing: Visitor) -> None:
    queueing.tolerated = ("ERR_FAILED",)
    tab = queueing.begin()
    tab.send(LONG)
    expect(tab.answer).to_contain_text("w3 ")
    tab.page.route("**/stop", lambda route: route.abort())
    tab.stop_button.click()
    alert = tab.root.get_by_role("alert")
    expect(alert).to_have_text("The answer was not stopped: the server cannot be reached.")
    tab.page.route("**/api/chat?*", lambda route: route.abort())
    tab.send("words=2")
    expect(alert).to_contain_text("The message was not sent")
    tab.stop_button.click()
    expect(tab.root.get_by_role("status").get_by_text("The answer was not stopped")).to_be_attached()
    expect(alert).to_contain_text("The message was not sent")
    tab.page.unroute("**/api/chat?*")
    tab.page.unroute("**/stop")
    tab.retry_button.click()
    waits(tab, "words=2")
    tab.stop_button.click()
    expect(tab.answer).to_have_text(words(2))
    tab.idle()
