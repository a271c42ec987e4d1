"""What the page tells of an answer's life and end: that it is being written, and why it is not whole."""

from playwright.sync_api import expect

from tests.browser.conftest import Tab, words


def test_a_failure_is_readable_and_can_be_tried_again(tab: Tab) -> None:
    tab.send("an error please")
    failure = tab.said("error")
    expect(failure).to_have_text("The scripted model failed, as it was asked to.")
    with tab.page.expect_response("**/api/chat?*") as sent:
        tab.retry_button.click()
    assert sent.value.status == 202
    expect(failure).to_have_count(1)
    expect(tab.retry_button).to_be_visible()
    tab.idle()
    said = tab.texts()
    assert [role for role, _ in said] == ["user", "assistant", "error"]
    tab.reload()
    assert tab.texts() == said
    expect(tab.retry_button).to_be_visible()
    tab.send("words=1")
    tab.idle()
    assert [role for role, _ in tab.texts()] == ["user", "assistant", "user", "assistant"]
    expect(tab.retry_button).to_be_hidden()


def test_why_an_answer_is_not_whole_stays_to_be_read(tab: Tab) -> None:
    """In full while it is the last word, shortly after that; the same after a reload at any time."""
    note = tab.said("note")
    told = tab.log.get_by_text("The answer was stopped.").filter(visible=True)
    tab.send("call a tool delay=60000")
    tab.stop_button.click()
    for reloaded in (False, True):
        if reloaded:
            tab.reload()
        expect(note).to_have_text("The answer was stopped.")
        expect(told).to_have_count(1)
    tab.send("words=2")
    expect(tab.answer).to_have_text(words(2))
    tab.idle()
    for reloaded in (False, True):
        if reloaded:
            tab.reload()
        expect(note).to_have_count(0)
        expect(told).to_have_count(1)
        assert [role for role, _ in tab.texts()] == ["user", "assistant", "user", "assistant"]


def test_a_tool_call_that_was_stopped_did_not_fail(tab: Tab) -> None:
    tab.send("call a tool delay=1000")
    call = tab.log.locator("[data-part=tool-call]")
    expect(call.get_by_text("running")).to_be_visible()
    expect(tab.log.get_by_text("Writing")).to_be_visible()
    tab.stop_button.click()
    for reloaded in (False, True):
        if reloaded:
            tab.reload()
        expect(call.get_by_text("stopped", exact=True)).to_be_visible()
        expect(call.get_by_text("failed", exact=True)).to_be_hidden()


def test_there_is_life_until_the_answer_itself_grows(tab: Tab) -> None:
    writing = tab.log.get_by_text("Writing")
    tab.send("show me reasoning delay=150")
    expect(tab.log.locator("[data-part=thinking]")).to_be_visible()
    expect(writing).to_be_visible()
    expect(tab.answer).to_contain_text("You")
    expect(writing).to_be_hidden()
    tab.stop_button.click()
    tab.idle()
