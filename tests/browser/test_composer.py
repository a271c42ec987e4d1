"""Where messages are written: nothing is lost or sent by accident, and focus stays in reach."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Tab, Visitor, words

LONG = "words=3000 delay=20"


@pytest.fixture
def busy(tab: Tab) -> Tab:
    """While an answer is being written."""
    tab.send(LONG)
    expect(tab.answer).to_contain_text("w3 ")
    return tab


@pytest.mark.parametrize("width", [1280, 360])
def test_a_late_click_on_stop_does_not_send(busy: Tab, width: int) -> None:
    busy.page.set_viewport_size({"width": width, "height": 640})
    busy.input.fill("a draft")
    box = busy.stop_button.bounding_box()
    assert box is not None
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    busy.page.mouse.click(*middle)
    expect(busy.stop_button).to_be_hidden()
    busy.idle()
    busy.page.mouse.click(*middle)
    expect(busy.input).to_have_value("a draft")
    assert [text for role, text in busy.texts() if role == "user"] == [LONG]


def test_escape_stops_the_answer(busy: Tab) -> None:
    expect(busy.input).to_have_accessible_description(re.compile("Escape stops it"))
    busy.input.fill("a draft")
    busy.input.dispatch_event("keydown", {"key": "Escape", "bubbles": True, "isComposing": True})
    with busy.page.expect_request("**/stop") as stopped:
        busy.input.press("Escape")
    assert stopped.value.method == "POST"
    expect(busy.said("note")).to_have_text("The answer was stopped.")
    busy.idle()
    expect(busy.input).to_have_value("a draft")
    expect(busy.input).not_to_have_accessible_description(re.compile("Escape"))
    busy.input.press("Escape")  # which now does nothing
    expect(busy.root.get_by_role("alert")).to_be_hidden()


def test_focus_goes_on_from_a_button_that_goes_away(tab: Tab, visitor: Visitor) -> None:
    tab.send("an error please")
    tab.retry_button.press("Enter")
    expect(tab.input).to_be_focused()
    expect(tab.retry_button).to_be_visible()
    tab.idle()
    visitor.tolerated = ("ERR_FAILED",)
    tab.page.route("**/api/chat?*", lambda route: route.abort())
    tab.send("words=3")
    expect(tab.root.get_by_role("alert")).to_be_visible()
    tab.page.unroute("**/api/chat?*")
    tab.retry_button.press("Enter")
    expect(tab.input).to_be_focused()
    expect(tab.answer).to_have_text(words(3))


def test_a_draft_outlives_its_page(tab: Tab, visitor: Visitor) -> None:
    tab.input.fill("half a\nthought")
    tab.reload()
    expect(tab.input).to_have_value("half a\nthought")
    tab.page.goto("/")
    tab.page.go_back()
    expect(tab.ready().input).to_have_value("half a\nthought")
    other = visitor.open(tab.page.url)
    expect(other.input).to_have_value("")  # it is this tab's
    tab.input.press("Enter")
    expect(tab.input).to_have_value("")
    tab.idle()
    tab.reload()
    expect(tab.input).to_have_value("")


def test_what_a_changed_session_refuses_is_there_after_the_reload(tab: Tab, visitor: Visitor) -> None:
    visitor.tolerated = ("403",)
    tab.page.route("**/api/chat?*", lambda route: route.fulfill(status=403, body="CSRF"))
    tab.send("words=3")
    expect(tab.root.get_by_role("alert")).to_have_text("Your session has changed. Reload the page to go on.")
    tab.page.unroute("**/api/chat?*")
    tab.root.get_by_role("button", name="Reload the page").click()
    expect(tab.ready().input).to_have_value("words=3")
    tab.input.press("Enter")
    expect(tab.answer).to_have_text(words(3))


def test_a_browser_that_stores_nothing(tab: Tab) -> None:
    denied = """Object.defineProperty(window, "sessionStorage", {
        get() { throw new DOMException("denied", "SecurityError"); },
    })"""
    tab.page.context.add_init_script(denied)
    tab.reload()
    assert tab.page.evaluate("() => { try { return sessionStorage; } catch (error) { return error.name; } }")
    tab.send("words=3")
    expect(tab.answer).to_have_text(words(3))
    expect(tab.input).to_have_value("")


def test_enter_on_a_touch_screen_begins_a_new_line(arrive: Callable[..., Visitor]) -> None:
    visitor = arrive(has_touch=True, is_mobile=True, viewport={"width": 800, "height": 600})
    tab = visitor.begin()
    expect(tab.input).not_to_have_accessible_description(re.compile("Enter"))
    tab.input.fill("words=3")
    tab.input.press("Enter")
    expect(tab.input).to_have_value("words=3\n")
    tab.send_button.tap()
    expect(tab.answer).to_have_text(words(3))


def test_what_was_sent_arrives_though_its_page_goes(tab: Tab) -> None:
    with tab.page.expect_navigation():
        tab.page.evaluate(
            "() => { document.querySelector('durable-chat').send('words=3'); location.reload(); }"
        )
    expect(tab.ready().answer).to_have_text(words(3))
    expect(tab.input).to_have_value("")
    tab.idle()
    assert tab.texts() == [("user", "words=3"), ("assistant", words(3))]


def test_a_lost_answer_to_a_send_does_not_double_it_after_a_reload(tab: Tab, visitor: Visitor) -> None:
    visitor.tolerated = ("ERR_FAILED",)

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    tab.page.route("**/api/chat-stream?*", lambda route: None)
    tab.reload()
    tab.page.route("**/api/chat?*", lose)
    tab.send("words=3")
    expect(tab.root.get_by_role("alert")).to_contain_text("The message was not sent")
    expect(tab.input).to_have_value("words=3")
    tab.page.unroute_all()
    tab.reload()
    expect(tab.answer).to_have_text(words(3))
    expect(tab.input).to_have_value("")
    tab.idle()
    assert tab.texts() == [("user", "words=3"), ("assistant", words(3))]
