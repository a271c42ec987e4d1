"""What a person does with the page: nothing is lost, nothing is doubled, and everything is in reach."""

import re
from collections.abc import Callable

from playwright.sync_api import Route, expect

from tests.browser.conftest import Tab, Visitor, words
from tests.browser.wire import Wire


def test_an_answer_streams_in(tab: Tab) -> None:
    tab.send("words=150 delay=20")
    expect(tab.said("user")).to_have_text("words=150 delay=20")
    expect(tab.answer).to_contain_text("w3 ")
    assert tab.answer.text_content() != words(150)
    expect(tab.log).to_have_attribute("aria-busy", "true")
    tab.idle()
    assert tab.texts() == [("user", "words=150 delay=20"), ("assistant", words(150))]
    expect(tab.input).to_be_focused()
    expect(tab.input).to_have_value("")


def test_reloads_in_the_middle(tab: Tab) -> None:
    tab.send("words=150 delay=20")
    for word in ("w5 ", "w30 ", "w60 ", "w100 "):
        expect(tab.answer).to_contain_text(word)
        tab.reload()
    tab.idle()
    assert tab.texts() == [("user", "words=150 delay=20"), ("assistant", words(150))]


def test_a_second_tab_is_live(tab: Tab, visitor: Visitor) -> None:
    early = visitor.open(tab.page.url)
    tab.send("words=80 delay=20")
    expect(early.said("user")).to_have_text("words=80 delay=20")
    expect(early.answer).to_contain_text("w20 ")
    late = visitor.open(tab.page.url)
    for each in (tab, early, late):
        each.idle()
        assert each.texts() == [("user", "words=80 delay=20"), ("assistant", words(80))]


def test_a_second_tab_knows_who_is_speaking(tab: Tab, visitor: Visitor) -> None:
    other = visitor.open(tab.page.url)
    tab.send("words=3000 delay=20")
    expect(other.stop_button).to_be_visible()
    other.input.fill("me too")
    other.input.press("Enter")
    expect(other.send_button).to_have_attribute("aria-disabled", "true")
    expect(other.input).to_have_accessible_description(re.compile("An answer is being written"))
    expect(other.input).to_have_value("me too")
    other.stop_button.click()
    tab.idle()
    other.input.press("Enter")
    expect(tab.said("user").last).to_have_text("me too")


BROKEN = (
    "ERR_INTERNET_DISCONNECTED",
    "ERR_NETWORK",
    "ERR_CONNECTION",
    "ERR_INCOMPLETE",
    "ERR_EMPTY",
    "ERR_SOCKET",
)


def test_the_network_goes_and_comes_back(arrive: Callable[..., Visitor], wire: Wire) -> None:
    visitor = arrive(wire.base)
    visitor.tolerated = BROKEN
    tab = visitor.begin()
    tab.send("words=150 delay=20")
    for word in ("w10 ", "w60 "):
        expect(tab.answer).to_contain_text(word)
        visitor.context.set_offline(True)
        wire.cut()
        expect(tab.root.get_by_text("Connection lost")).to_be_visible()
        visitor.context.set_offline(False)
    tab.idle()
    expect(tab.root.get_by_text("Connection lost")).to_be_hidden()
    assert tab.texts() == [("user", "words=150 delay=20"), ("assistant", words(150))]


def test_connections_that_break_in_the_middle_of_anything(arrive: Callable[..., Visitor], wire: Wire) -> None:
    visitor = arrive(wire.base)
    visitor.tolerated = BROKEN
    tab = visitor.begin()
    tab.send("words=150 delay=30")
    expect(tab.answer).to_contain_text("w1 ")
    before = wire.connections
    wire.allowance = 4000
    wire.cut()
    tab.idle()
    assert tab.texts() == [("user", "words=150 delay=30"), ("assistant", words(150))]
    assert wire.connections > before + 2


def test_a_page_out_of_the_history_goes_on(tab: Tab) -> None:
    tab.send("words=100 delay=20")
    expect(tab.answer).to_contain_text("w10 ")
    tab.page.goto("/")
    tab.page.go_back()
    expect(tab.answer).to_contain_text("w20 ")
    tab.idle()
    assert tab.texts() == [("user", "words=100 delay=20"), ("assistant", words(100))]


def test_an_element_that_is_replaced_by_its_copy_goes_on(tab: Tab) -> None:
    tab.send("words=100 delay=20")
    expect(tab.answer).to_contain_text("w10 ")
    tab.page.evaluate(
        """() => {
            const chat = document.querySelector("durable-chat");
            chat.replaceWith(chat.cloneNode(true));  // as pages do that keep their own history of HTML
        }"""
    )
    tab.idle()
    assert tab.texts() == [("user", "words=100 delay=20"), ("assistant", words(100))]


def test_enter_belongs_to_the_input_method_while_it_composes(tab: Tab) -> None:
    tab.input.fill("にほ")
    for event in ({"isComposing": True}, {"keyCode": 229}):
        tab.input.dispatch_event("keydown", {"key": "Enter", "bubbles": True, **event})
    expect(tab.input).to_have_value("にほ")
    expect(tab.said("user")).to_have_count(0)


def test_what_was_not_sent_is_kept(tab: Tab, visitor: Visitor) -> None:
    visitor.tolerated = ("ERR_FAILED",)
    tab.page.route("**/api/chat?*", lambda route: route.abort())
    tab.send("words=3")
    expect(tab.root.get_by_role("alert")).to_have_text(
        "The message was not sent: the server cannot be reached."
    )
    expect(tab.input).to_have_value("words=3")
    expect(tab.said("user")).to_have_count(0)
    tab.page.unroute("**/api/chat?*")
    tab.retry_button.click()
    expect(tab.answer).to_have_text(words(3))
    expect(tab.root.get_by_role("alert")).to_be_hidden()
    expect(tab.input).to_have_value("")
    assert tab.texts() == [("user", "words=3"), ("assistant", words(3))]


def test_a_lost_answer_to_a_send_does_not_double_it(tab: Tab, visitor: Visitor) -> None:
    visitor.tolerated = ("ERR_FAILED",)

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    tab.page.route("**/api/chat?*", lose)
    tab.send("words=3")
    expect(tab.answer).to_have_text(words(3))
    tab.idle()
    expect(tab.root.get_by_role("alert")).to_be_hidden()
    expect(tab.input).to_have_value("")
    assert tab.texts() == [("user", "words=3"), ("assistant", words(3))]


def test_the_server_says_why_it_refuses(tab: Tab, visitor: Visitor) -> None:
    visitor.tolerated = ("409",)
    blind = visitor.open(tab.page.url)
    blind.page.route("**/api/chat-stream?*", lambda route: None)
    blind.reload()
    tab.send("words=3000 delay=20")
    expect(tab.stop_button).to_be_visible()
    blind.send("and me")
    expect(blind.root.get_by_role("alert")).to_have_text(re.compile("An answer is being written"))
    expect(blind.input).to_have_value("and me")
    tab.stop_button.click()
    tab.idle()


def test_a_conversation_that_is_gone(tab: Tab, visitor: Visitor) -> None:
    visitor.tolerated = ("404",)
    tab.page.evaluate(
        """async () => {
            const { hydrateUrl, csrfToken } = document.querySelector(".durable-chat").dataset;
            const headers = { "x-csrftoken": csrfToken };
            await fetch(hydrateUrl, { method: "DELETE", headers });
        }"""
    )
    tab.send("hello?")
    expect(tab.root.get_by_role("alert")).to_have_text("This conversation can no longer be read here.")


def test_what_came_live_looks_like_what_was_rendered(tab: Tab) -> None:
    for prompt in (
        "words=5",
        "show me reasoning",
        "call a tool",
        "an error please",
        "words=2",
        "<b onclick=alert(1)>hi</b> & <script>1</script>",
    ):
        tab.send(prompt)
        expect(tab.said("user").last).to_have_text(prompt)
        tab.idle()
    transcript = """list => list.innerHTML.replace(/>\\s+/g, ">").replace(/\\s+</g, "<")"""
    live = tab.log.get_by_role("list").evaluate(transcript)
    tab.reload()
    assert tab.log.get_by_role("list").evaluate(transcript) == live
    assert "&lt;script&gt;" in live
    expect(tab.log.get_by_text("The answer failed before its end.").filter(visible=True)).to_have_count(1)


def test_scrolling_follows_only_who_is_at_the_end(tab: Tab) -> None:
    at_end = "log => log.scrollHeight - log.scrollTop - log.clientHeight < 2"
    jump = tab.root.get_by_role("button", name="Jump to latest")
    tab.page.set_viewport_size({"width": 700, "height": 400})
    tab.send("words=3000 delay=5")
    expect(tab.answer).to_contain_text("w300 ")
    assert tab.log.evaluate(at_end)
    expect(jump).to_be_hidden()
    tab.log.hover()
    tab.page.mouse.wheel(0, -200)
    expect(jump).to_be_visible()
    stands = tab.log.evaluate("log => log.scrollTop")
    expect(tab.answer).to_contain_text("w450 ")
    assert tab.log.evaluate("log => log.scrollTop") == stands
    jump.click()
    expect(jump).to_be_hidden()
    tab.stop_button.click()
    tab.idle()
    assert tab.log.evaluate(at_end)


def test_strangers_see_nothing(tab: Tab, arrive: Callable[..., Visitor]) -> None:
    stranger = arrive()
    stranger.tolerated = ("404",)
    assert stranger.context.request.get(tab.page.url).status == 404
    expect(stranger.visit().get_by_role("navigation")).to_have_count(0)


def test_hosts_can_listen_and_speak(tab: Tab) -> None:
    tab.page.evaluate(
        """() => {
            window.told = [];
            for (const name of ["send", "run", "chunks"]) {
                document.addEventListener(`durable-chat:${name}`, () => told.push(name));
            }
        }"""
    )
    assert tab.page.evaluate("document.querySelector('durable-chat').send('words=2')")
    expect(tab.answer).to_have_text(words(2))
    tab.idle()
    told = tab.page.evaluate("told")
    assert told[0] == "send"
    assert told.count("run") == 2
    assert "chunks" in told
    tab.page.evaluate("document.addEventListener('durable-chat:send', (event) => event.preventDefault())")
    assert not tab.page.evaluate("document.querySelector('durable-chat').send('never')")
    expect(tab.said("user")).to_have_count(1)
