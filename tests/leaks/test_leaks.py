"""Sentinel secrets through every door, and then a search of whatever anybody could read."""

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.browser.wire import Wire
from tests.clients.visitor import Visitor, stored
from tests.leaks.search import OF_THE_SITE, files, leaks, named, sentinels
from tests.leaks.site import CONTROL, fingerprint
from tests.live import LiveServer
from tests.service import Service

PASSWORD = "no secret of this test"
OF_THE_SERVICE = ("DS_SECRET", "DS_READ_SECRET")


@dataclass
class Site:
    """A live server whose answers are recorded, and what it must not tell."""

    server: LiveServer
    wire: Wire
    secrets: Mapping[str, str]
    directories: list[Path] = field(default_factory=list)


@pytest.fixture
def told(streams_env: Mapping[str, str]) -> Mapping[str, str]:
    """The secrets of the site and of two of its users, by name."""
    made = sentinels(*OF_THE_SITE, "ada", "bob", *OF_THE_SERVICE)
    return made | {name: streams_env[name] for name in OF_THE_SERVICE if name in streams_env}


def environment(told: Mapping[str, str], streams_env: Mapping[str, str]) -> dict[str, str]:
    settings = {name: told[name] for name in OF_THE_SITE}
    return {
        **settings,
        **streams_env,
        "DJANGO_SETTINGS_MODULE": "tests.leaks.settings",
        "PROVIDER_BACKEND": "tests.leaks.site.answer",
        "USER_KEYS": "optional",
    }


@pytest.fixture
def site(
    tmp_path: Path, told: Mapping[str, str], streams_env: Mapping[str, str], own_service: Service | None
) -> Iterator[Site]:
    server = LiveServer(tmp_path, env=environment(told, streams_env))
    server.migrate()
    for name in ("ada", "bob"):
        email, password = f"--email={name}@mail.example", {"DJANGO_SUPERUSER_PASSWORD": PASSWORD}
        server.manage(
            "createsuperuser", "--noinput", "--verbosity=0", f"--username={name}", email, **password
        )
    server.start()
    directories = [tmp_path, *([own_service.directory] if own_service else [])]
    with Wire(server.base) as wire:
        yield Site(server, wire, told, directories)
    server.end()


class User(Visitor):
    """Somebody signed in, with a key of their own."""

    def __init__(self, base: str, name: str, key: str) -> None:
        super().__init__(base)
        self.key = key
        self.http.get("/admin/login/")
        form = {"username": name, "password": PASSWORD, "csrfmiddlewaretoken": self.csrf, "next": "/"}
        assert self.http.post("/admin/login/", data=form).status_code == 302

    def send(self, conversation: str, text: str, *, header: str = "x-api-key", sdk: bool = False) -> Any:
        content = "text" if sdk else "content"
        part = {"type": "text", content: text}
        message = {"id": secrets.token_hex(8), "role": "user", "parts": [part]}
        body: dict[str, Any] = {"id": conversation, "messages": [message]}
        body |= {"trigger": "submit-message"} if sdk else {}
        return self.http.post("/api/chat", json=body, headers={"x-csrftoken": self.csrf, header: self.key})


def test_nothing_leaks(site: Site, packages: None, streams_env: Mapping[str, str], tmp_path: Path) -> None:
    with ExitStack() as stack:
        ada, bob = (User(site.wire.base, name, site.secrets[name]) for name in ("ada", "bob"))
        for user in (ada, bob):
            stack.callback(user.http.close)
        conversation = ada.begin()
        talk(ada, bob, conversation)
        read(ada, conversation)
        look(ada, conversation)
        provoke(ada, conversation)
        knock(ada, site)
        drive(ada)
        leave(ada, bob, conversation)
        assert in_processes(site) == []
    if streams_env:
        refused(site, ada, streams_env)
    site.server.end()
    places = {"the wire": bytes(site.wire.answered)} | files(site.directories)
    assert_searchable(places)
    assert leaks(site.secrets, places) == []


def assert_searchable(places: Mapping[str, bytes]) -> None:
    """The search finds what is there: in the answers, the log, the rows and the streams."""
    # A row may still be in the database's log, which the last connection alone takes away.
    found = {
        Path(place).suffix.removesuffix("-wal") for place, held in places.items() if CONTROL.encode() in held
    }
    assert {"", ".log", ".sqlite3"} <= found, found


def talk(ada: User, bob: User, conversation: str) -> None:
    """Both dialects, both headers, two keys; models that fail and quote the key."""
    members = f"/api/conversations/{conversation}/members"
    assert ada.post(members, {"user": "bob", "role": "writer"}).status_code == 201
    header = {"x-csrftoken": ada.csrf}
    assert ada.http.patch(f"{members}/bob", json={"role": "writer"}, headers=header).status_code == 200
    ada.http.get(members).raise_for_status()
    for user, options in ((ada, {}), (bob, {"header": "x-byok-openai"}), (ada, {"sdk": True})):
        sent = user.send(conversation, f"{CONTROL} please", **options)
        assert sent.status_code in (201, 202), sent.text
        assert fingerprint(user.key) in user.settled(conversation)[-1][2]
    for text in ("raise", "tell"):
        assert bob.send(conversation, text).status_code == 202
        bob.settled(conversation)
        failure = bob.hydrate(conversation)["failure"]
        assert failure is not None
    forgotten = ada.post("/api/chat", {"id": conversation, "messages": []})
    assert forgotten.status_code == 400


def read(ada: User, conversation: str) -> None:
    """Catch-up, long poll, SSE, one run, reconnect, WebSocket, hydration in every dialect."""
    ada.chunks(conversation)
    address = f"/api/chat-stream?id={conversation}&offset=-1"
    ada.http.get(f"{address}&live=long-poll").raise_for_status()
    location = ada.send(conversation, "hello", sdk=True).headers["location"]
    for path in (f"{address}&live=sse", f"{location}&offset=-1&live=sse"):
        with ada.http.stream("GET", path) as live:
            for line in live.iter_lines():
                if "RUN_FINISHED" in line or '"finish"' in line:
                    break
    ada.settled(conversation)
    ada.http.get(f"/api/chat/{conversation}/stream").raise_for_status()
    for dialect in ("tanstack", "ai-sdk"):
        ada.hydrate(conversation, dialect)  # type: ignore[arg-type]
    ada.http.get("/api/conversations").raise_for_status()
    cookie = "; ".join(f"{name}={value}" for name, value in ada.http.cookies.items())
    socket = f"{ada.base.replace('http', 'ws')}/ws/chat/{conversation}"
    headers = {"Cookie": cookie}
    with connect(socket, origin=ada.base, additional_headers=headers, compression=None) as frames:  # type: ignore[arg-type]
        while json.loads(frames.recv(timeout=20)).get("chunk", {}).get("type") != "RUN_FINISHED":
            continue


def look(ada: User, conversation: str) -> None:
    """Every page of the admin that there is to see, the demo's own pages, and the stop."""
    pages = [f"/admin/durable_chat/{model}/" for model in ("conversation", "message", "run")]
    pages += [
        f"/admin/durable_chat/conversation/{conversation}/change/",
        "/admin/",
        "/",
        f"/c/{conversation}/",
    ]
    for page in pages:
        ada.http.get(page).raise_for_status()
    runs = ada.http.get("/admin/durable_chat/run/").text
    for row in {part.split("/")[0] for part in runs.split("/admin/durable_chat/run/")[1:]} - {"", '"'}:
        ada.http.get(f"/admin/durable_chat/run/{row}/change/")
    for page in ("/admin/durable-streams/", "/admin/durable-streams/?q=chat"):
        ada.http.get(page)
    ada.post(f"/api/chat/{conversation}/stop", {})


def drive(ada: User) -> None:
    """The published clients, whose messages come back signed."""
    tanstack, sdk = ada.begin(), ada.begin()
    (tab,) = ada.drive("tanstack_tabs", tanstack, prompts=["hello"])["tabs"]
    chat = ada.drive("ai_sdk_send", sdk, prompt="hello")
    for conversation, messages in ((tanstack, tab["messages"]), (sdk, chat["messages"])):
        assert ada.settled(conversation) == stored(messages)
        assert ada.hydrate(conversation)["messages"][0]["metadata"]["author"]["name"] == "ada"
        assert '"name":"ada"' in json.dumps(ada.chunks(conversation), separators=(",", ":"))


def provoke(ada: User, conversation: str) -> None:
    """Django's error pages, with the keys among the request's headers and the settings in the frames."""
    keys = {"x-api-key": ada.key, "x-byok-openai": ada.key, "x-csrftoken": ada.csrf}
    page = ada.http.get("/provoked/", headers=keys)
    assert page.status_code == 500
    assert "RuntimeError" in page.text
    for moment in ("before", "after"):
        body = {"id": conversation, "messages": []}
        page = ada.http.post("/api/chat", json=body, headers={**keys, "x-provoke": moment})
        assert (page.status_code, f"{moment} the view" in page.text) == (500, True)
    assert ada.http.get("/nothing/here/", headers=keys).status_code == 404


def knock(ada: User, site: Site) -> None:
    """The embedded server's own door, with the right tokens and with wrong ones."""
    write, read = (site.secrets[f"DS_EMBEDDED_{kind}_TOKEN"] for kind in ("WRITE", "READ"))
    for token, status in ((write, 201), (read, 403), ("wrong", 401)):
        header = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        assert httpx.put(f"{ada.base}/v1/stream/outside", headers=header).status_code == status
    assert httpx.get(f"{ada.base}/v1/stream/outside?offset=-1").status_code == 401


def leave(ada: User, bob: User, conversation: str) -> None:
    """What is refused, and what is erased."""
    header = {"x-csrftoken": ada.csrf}
    assert (
        ada.http.delete(f"/api/conversations/{conversation}/members/bob", headers=header).status_code == 204
    )
    assert bob.send(conversation, "hello").status_code == 404
    gone = ada.begin()
    assert ada.http.delete(f"/api/conversations/{gone}", headers=header).status_code == 204


def refused(site: Site, ada: User, streams_env: Mapping[str, str]) -> None:
    """The same site again, with secrets that the service does not take."""
    wrong = sentinels(*OF_THE_SERVICE)
    again = LiveServer(site.server.directory, env=environment(site.secrets, {**streams_env, **wrong}))
    site.secrets = {**site.secrets, **{f"wrong {name}": value for name, value in wrong.items()}}
    again.start()
    with Wire(again.base) as wire:
        user = User(wire.base, "ada", site.secrets["ada"])
        conversation = user.begin()
        for answer in (
            user.http.get(f"/api/chat-stream?id={conversation}&offset=-1"),
            user.http.get(f"/api/chat-stream?id={conversation}&offset=-1&live=sse"),
            user.send(conversation, "hello"),
        ):
            assert answer.status_code == 503, answer.text
            assert answer.headers["retry-after"]
        user.http.close()
        site.wire.answered += wire.answered
    again.end()


def in_processes(site: Site) -> list[str]:
    """Secrets on command lines, or in the environment of anything but the site itself."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone, or somebody else's
            arguments, variables = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
            put_there = str(site.server.directory).encode() in variables
            users = {name for name in named(site.secrets, variables) if name in ("ada", "bob")}
            leaked = users if put_there else set(named(site.secrets, variables))
            found += [f"{name}: {arguments!r}" for name in {*leaked, *named(site.secrets, arguments)}]
    return found
