"""What the page looks like. The screenshots are for people; what a program can tell of them is asserted."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from tests.browser.conftest import SCREENSHOTS, Tab, Visitor

WIDE, NARROW = ViewportSize(width=1200, height=800), ViewportSize(width=320, height=640)

# The text of an element against what is painted behind it: WCAG's contrast ratio, the least on the page.
LEAST_CONTRAST = """() => {
    const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (color) => {
        probe.clearRect(0, 0, 1, 1);
        probe.fillStyle = color;
        probe.fillRect(0, 0, 1, 1);
        return [...probe.getImageData(0, 0, 1, 1).data];
    };
    const opacity = (element) =>
        (element ? getComputedStyle(element).opacity * opacity(element.parentElement) : 1);
    const seen = (element, ground) => {
        const [part, above, below] = [opacity(element), rgba(getComputedStyle(element).color), rgba(ground)];
        const mixed = above.map((value, at) => value * part + below[at] * (1 - part));
        return `rgb(${mixed.slice(0, 3).join(" ")})`;
    };
    const light = (color) => rgba(color).slice(0, 3).map((value) => value / 255)
        .map((value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
        .reduce((sum, value, at) => sum + value * [0.2126, 0.7152, 0.0722][at], 0);
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const { backgroundColor } = getComputedStyle(at);
            if (rgba(backgroundColor)[3] > 250) return backgroundColor;
        }
        return "white";
    };
    const shown = [...document.querySelectorAll("body *")].filter((element) =>
        [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim())
        && element.checkVisibility() && getComputedStyle(element).clipPath === "none"
        && !element.closest(".durable-chat__author, .durable-chat__announcer, .demo__unseen"));
    return Math.min(...shown.map((element) => {
        const ground = behind(element);
        const [a, b] = [light(seen(element, ground)), light(ground)];
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    }));
}"""
SPILLS = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    scheme: str = request.param
    return scheme


@pytest.fixture
def looked_at(arrive: Callable[..., Visitor], scheme: str) -> Tab:
    """A conversation with one of everything."""
    visitor = arrive(viewport=WIDE, color_scheme=scheme, reduced_motion="reduce")
    visitor.tolerated = ("503",)
    tab = visitor.begin()
    for prompt in ("What is a durable stream?", "show me reasoning", "call a tool", "an error please"):
        tab.send(prompt)
        expect(tab.said("user").last).to_have_text(prompt)
        tab.idle()
    for summary in tab.log.locator("summary").all():
        summary.click()
    tab.root.get_by_role("button", name="Jump to latest").click()
    return tab


def _check(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")
    assert page.evaluate(LEAST_CONTRAST) >= 4.5, name
    assert not page.evaluate(SPILLS), name


def test_a_conversation(looked_at: Tab, scheme: str) -> None:
    _check(looked_at.page, f"conversation-{scheme}")
    looked_at.page.set_viewport_size(NARROW)
    _check(looked_at.page, f"conversation-{scheme}-320")


def test_an_answer_being_written(looked_at: Tab, scheme: str) -> None:
    looked_at.send("words=500 delay=20 and a long word: " + "Donaudampfschifffahrtsgesellschaft" * 4)
    expect(looked_at.answer).to_contain_text("w30 ")
    _check(looked_at.page, f"writing-{scheme}")
    assert looked_at.page.evaluate("document.getAnimations().length") == 0
    looked_at.page.set_viewport_size(NARROW)
    looked_at.input.fill("A draft\nof several\nlines")
    looked_at.page.mouse.move(160, 300)
    looked_at.page.mouse.wheel(0, -600)
    expect(looked_at.root.get_by_role("button", name="Jump to latest")).to_be_visible()
    _check(looked_at.page, f"writing-{scheme}-320")
    looked_at.stop_button.click()
    looked_at.idle()


def test_trouble(looked_at: Tab, scheme: str) -> None:
    looked_at.page.route(
        "**/api/chat?*", lambda route: route.fulfill(status=503, json={"error": "Come back."})
    )
    looked_at.send("Is anybody there?")
    expect(looked_at.root.get_by_role("alert")).to_have_text("Come back.")
    _check(looked_at.page, f"trouble-{scheme}")


def test_what_is_on_its_way(looked_at: Tab, scheme: str) -> None:
    looked_at.page.route("**/api/chat?*", lambda route: None)
    looked_at.root.locator(".durable-chat").evaluate("chat => { chat.dataset.whenBusy = 'queue' }")
    looked_at.send("Is anybody there?")
    looked_at.send("And what of this, which is far too long a text for the line, on a screen of any width?")
    expect(looked_at.log.locator("[data-pending]")).to_be_visible()
    expect(looked_at.root.locator(".durable-chat__waiting[data-pending]")).to_be_visible()
    _check(looked_at.page, f"pending-{scheme}")


SET = "([place, name, value]) => document.querySelector(place).style.setProperty(name, value)"
COLOUR = "element => getComputedStyle(element).backgroundColor"


@pytest.mark.parametrize("place", ["main", "durable-chat"])
def test_hosts_decide_on_accent_and_height(visitor: Visitor, place: str) -> None:
    tab = visitor.begin()
    tab.page.evaluate(SET, [place, "--durable-chat-accent", "rgb(1, 2, 3)"])
    tab.page.evaluate(SET, [place, "--durable-chat-block-size", "300px"])
    assert tab.send_button.evaluate(COLOUR) == "rgb(1, 2, 3)"
    box = tab.root.bounding_box()
    assert box is not None
    assert box["height"] == 300


def test_the_chat_is_as_light_or_dark_as_its_host(arrive: Callable[..., Visitor]) -> None:
    tab = arrive(color_scheme="dark").begin()
    chat, dark, light = tab.root.locator(".durable-chat"), "rgb(21, 23, 28)", "rgb(255, 255, 255)"
    assert chat.evaluate(COLOUR) == dark
    tab.page.evaluate(SET, [":root", "color-scheme", "light"])
    assert chat.evaluate(COLOUR) == light
    tab.page.evaluate(SET, ["durable-chat", "color-scheme", "dark"])
    assert chat.evaluate(COLOUR) == dark


def test_where_colours_are_the_readers_own(arrive: Callable[..., Visitor]) -> None:
    tab = arrive(forced_colors="active").begin()
    tab.send("words=3000 delay=20")
    expect(tab.answer).to_contain_text("w3 ")
    assert tab.answer.evaluate("text => getComputedStyle(text, '::after').outlineStyle") == "solid"
    here = tab.page.get_by_role("navigation").locator("[aria-current=page]")
    assert here.evaluate("link => getComputedStyle(link).outlineStyle") == "solid"
    tab.stop_button.click()
    tab.idle()


def test_without_scripts(arrive: Callable[..., Visitor], scheme: str) -> None:
    page = arrive(viewport=WIDE, color_scheme=scheme, java_script_enabled=False).visit()
    page.get_by_role("button", name="New conversation").click()
    told, composer = (
        page.locator(f".durable-chat__{name}").bounding_box() for name in ("noscript", "composer")
    )
    assert told is not None
    assert composer is not None
    assert (told["x"], told["width"]) == (composer["x"], composer["width"])
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"noscript-{scheme}.png")


def test_the_pages_around_it(arrive: Callable[..., Visitor], scheme: str) -> None:
    visitor = arrive(viewport=WIDE, color_scheme=scheme)
    page = visitor.visit()
    _check(page, f"home-{scheme}")
    tab = visitor.begin()
    tab.send_button.hover()
    _check(tab.page, f"empty-{scheme}")
    tab.page.set_viewport_size(NARROW)
    _check(tab.page, f"empty-{scheme}-320")
    page.reload()
    page.set_viewport_size(NARROW)
    _check(page, f"home-{scheme}-320")
