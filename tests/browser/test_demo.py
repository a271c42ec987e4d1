"""The demo around the chat: what its pages and conversations are called, and how many there are."""

from playwright.sync_api import expect

from tests.browser.conftest import Tab, Visitor, words


def test_a_page_is_called_what_its_conversation_is(tab: Tab) -> None:
    expect(tab.page).to_have_title("New conversation · Durable chat")
    tab.send("words=2")
    for reloaded in (False, True):
        if reloaded:
            expect(tab.answer).to_have_text(words(2))
            tab.reload()
        expect(tab.page).to_have_title("words=2 · Durable chat")
        expect(tab.page.get_by_role("heading", level=1)).to_have_text("words=2")
        expect(tab.page.get_by_role("heading", level=2)).to_have_text("Conversation")
        expect(tab.page.get_by_role("navigation").get_by_text("words=2")).to_be_visible()
    tab.send("words=3")
    expect(tab.answer).to_have_text(words(3))
    expect(tab.page).to_have_title("words=2 · Durable chat")


def test_a_conversation_without_a_word_is_the_next_one(tab: Tab, visitor: Visitor) -> None:
    entries = tab.page.get_by_role("navigation").get_by_role("link")
    again = visitor.begin()
    assert again.page.url == tab.page.url
    tab.send("words=2")
    expect(tab.answer).to_have_text(words(2))
    assert visitor.begin().page.url != tab.page.url
    tab.reload()
    expect(entries).to_have_count(2)
