"""The page by keyboard, by ear, and in whatever direction and colours its reader needs."""

import re

from playwright.sync_api import expect

from tests.browser.conftest import Tab, words


def test_with_the_keyboard_alone(tab: Tab) -> None:
    keyboard = tab.page.keyboard
    tab.reload()
    tab.log.focus()
    keyboard.press("Tab")  # past the suggestions, which are buttons in the log
    for _ in range(4):
        keyboard.press("Tab")
    expect(tab.input).to_be_focused()
    keyboard.type("words=3000")
    keyboard.press("Shift+Enter")
    keyboard.type("delay=20")
    expect(tab.said("user")).to_have_count(0)
    keyboard.press("Enter")
    expect(tab.said("user")).to_have_text("words=3000\ndelay=20")
    expect(tab.stop_button).to_be_visible()
    keyboard.press("Tab")
    expect(tab.stop_button).to_be_focused()
    keyboard.press("Tab")
    expect(tab.send_button).to_be_focused()
    keyboard.press("Shift+Tab")
    expect(tab.answer).to_contain_text("w5 ")
    keyboard.press("Enter")
    expect(tab.said("note")).to_have_text(re.compile("stopped", re.IGNORECASE))
    expect(tab.input).to_be_focused()
    expect(tab.stop_button).to_be_hidden()
    assert words(3000).startswith(tab.answer.text_content() or "-")


def test_a_screen_reader_hears_an_answer_once(tab: Tab) -> None:
    tab.page.evaluate(
        """() => {
            window.heard = [];
            const announcer = document.querySelector(".durable-chat__announcer");
            const listener = new MutationObserver(() => heard.push(announcer.textContent));
            listener.observe(announcer, { childList: true });
        }"""
    )
    tab.send("words=30 delay=10")
    expect(tab.log).to_have_attribute("aria-live", "off")
    tab.idle()
    expect(tab.log).to_have_attribute("aria-live", "polite")
    assert tab.page.evaluate("heard") == ["The assistant is writing.", words(30)]
    tab.page.evaluate("heard.length = 0")
    tab.send("words=3000 delay=20")
    expect(tab.answer).to_contain_text("w3 ")
    tab.stop_button.click()
    tab.idle()
    assert tab.page.evaluate("heard.filter(Boolean)") == [
        "The assistant is writing.",
        "The answer was stopped.",
    ]


def test_everything_has_a_role_and_a_name(tab: Tab) -> None:
    chat = tab.page.get_by_role("region", name="Conversation")
    expect(chat.get_by_role("heading", name="Conversation")).to_be_attached()
    expect(chat.get_by_role("log", name="Messages")).to_be_visible()
    expect(chat.get_by_role("textbox", name="Message")).to_have_accessible_description(
        re.compile("Enter sends")
    )
    expect(tab.page.get_by_role("navigation", name="Conversations")).to_be_visible()
    expect(tab.page.get_by_role("main")).to_be_visible()
    chat.get_by_role("button", name="call a tool").click()
    expect(tab.input).to_have_value("call a tool")
    expect(tab.input).to_be_focused()
    tab.input.press("Enter")
    tab.idle()
    tab.log.get_by_role("group").get_by_text("weather").click()
    expect(tab.log.get_by_text("Berlin").first).to_be_visible()
    expect(tab.page.get_by_role("navigation").get_by_text("call a tool")).to_be_visible()


def test_texts_run_in_their_own_direction(tab: Tab) -> None:
    tab.input.fill("שלום, words=2")
    direction = "element => getComputedStyle(element).direction"
    assert tab.input.evaluate(direction) == "rtl"
    tab.input.press("Enter")
    tab.idle()
    for reloaded in (False, True):
        if reloaded:
            tab.reload()
        assert tab.said("user").evaluate(direction) == "rtl"
        assert tab.answer.evaluate(direction) == "ltr"
