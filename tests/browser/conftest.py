"""A browser, a site under a strict policy, and a page that may not complain."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from tests.browser.wire import Wire
from tests.live import ROOT, live_server

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
STRICT = {"DJANGO_SETTINGS_MODULE": "tests.browser.settings"}
SCREENSHOTS = Path(__file__).parent / "screenshots"

expect.set_options(timeout=15_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For a module at most: while it lives, its event loop is this thread's, and async tests need theirs."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def env(streams_env: Mapping[str, str]) -> Mapping[str, str]:
    """The strict site's environment, with its streams here or there."""
    return {**STRICT, **streams_env}


@pytest.fixture(scope="session")
def address(env: Mapping[str, str]) -> Iterator[str]:
    with live_server(env=env) as base:
        yield base


@pytest.fixture
def wire(address: str) -> Iterator[Wire]:
    with Wire(address) as wire:
        yield wire


class Visitor:
    """Somebody at a browser: one session, any number of tabs, none of which may log an error."""

    def __init__(self, browser: Browser, base: str, **options: Any) -> None:
        self.context: BrowserContext = browser.new_context(base_url=base, **options)
        self.complaints: list[str] = []
        self.tolerated: tuple[str, ...] = ()

    def visit(self, path: str = "/") -> Page:
        page = self.context.new_page()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(path)
        return page

    def open(self, path: str) -> "Tab":
        return Tab(self.visit(path)).ready()

    def begin(self) -> "Tab":
        """A tab with a new conversation."""
        page = self.visit()
        page.get_by_role("button", name="New conversation").click()
        return Tab(page).ready()

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning") and not any(word in message.text for word in self.tolerated):
            self.complaints.append(message.text)


class Tab:
    """A page with a chat on it, by what people can see of it."""

    def __init__(self, page: Page, root: Locator | None = None) -> None:
        self.page = page
        self.root = root or page.locator("durable-chat")
        self.log = self.root.get_by_role("log")
        self.input = self.root.get_by_role("textbox", name="Message")
        self.send_button = self.root.get_by_role("button", name="Send")
        self.stop_button = self.root.get_by_role("button", name="Stop")
        self.retry_button = self.root.get_by_role("button", name="Try again")

    def ready(self) -> "Tab":
        """Wait for the modules: before them the page can only be read."""
        expect(self.send_button).not_to_have_attribute("disabled", "")
        return self

    def reload(self) -> None:
        self.page.reload()
        self.ready()

    def send(self, text: str) -> None:
        self.input.fill(text)
        self.input.press("Enter")

    def said(self, role: str) -> Locator:
        return self.log.locator(f"[data-role={role}]").locator("[data-part=text]")

    @property
    def answer(self) -> Locator:
        return self.said("assistant").last

    def texts(self) -> list[tuple[str, str]]:
        """(role, text) of everything in the transcript."""
        found: list[list[str]] = self.log.get_by_role("listitem").evaluate_all(
            """items => items.map(item => [item.dataset.role,
                [...item.querySelectorAll("[data-part=text]")].map(part => part.textContent).join("")])"""
        )
        return [(role, text) for role, text in found]

    def idle(self) -> None:
        expect(self.log).to_have_attribute("aria-busy", "false")


def copied(home: Path) -> Path:
    """The modules and their tests, below a package.json: without one, node before 20.19 sees CommonJS."""
    for name in ("durable_chat/static/durable_chat", "tests/browser"):
        shutil.copytree(
            ROOT / name, home / name, ignore=shutil.ignore_patterns("*.py", "*.png", "__pycache__")
        )
    (home / "package.json").write_text('{"type": "module"}')
    return home


def words(count: int) -> str:
    """What the scripted provider answers to `words=<count>`."""
    return "".join(f"w{number} " for number in range(count))


@pytest.fixture
def arrive(browser: Browser, address: str) -> Iterator[Callable[..., Visitor]]:
    visitors: list[Visitor] = []

    def arrived(base: str = address, **options: Any) -> Visitor:
        visitors.append(Visitor(browser, base, **options))
        return visitors[-1]

    yield arrived
    for visitor in visitors:
        visitor.context.close()
    assert [visitor.complaints for visitor in visitors if visitor.complaints] == []


@pytest.fixture
def visitor(arrive: Callable[..., Visitor]) -> Visitor:
    return arrive()


@pytest.fixture
def tab(visitor: Visitor) -> Tab:
    return visitor.begin()
