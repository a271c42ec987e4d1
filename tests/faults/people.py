"""People at a site whose servers die: what they ask of it, and readers that go on where they were."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar
from inspect import isawaitable
from typing import Any, Protocol, Self

import httpx
import websockets

from durable_chat.streams.client.sse import Decoder

Item = dict[str, Any]

PATIENCE_SECONDS = 30.0  # until a test gives up; what it waits for takes a fraction of that
POLL_SECONDS = 0.02
RETRY_SECONDS = 0.1  # how long a reader waits before it connects again


async def until(probe: Callable[[], Any]) -> Any:
    """The first true answer of ``probe``, which may be a coroutine function. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            answer = probe()
            answer = await answer if isawaitable(answer) else answer
            if answer:
                return answer
            await asyncio.sleep(POLL_SECONDS)


class Person:
    """Somebody's browser session, good at every server of the site."""

    def __init__(self, base: str, cookies: CookieJar | None = None) -> None:
        self.base = base
        timeout = httpx.Timeout(20.0, read=90.0)  # a live read may be silent for a while
        self.http = httpx.AsyncClient(base_url=base, cookies=cookies, timeout=timeout, trust_env=False)

    async def __aenter__(self) -> Self:
        if "csrftoken" not in self.http.cookies:
            (await self.http.get("/")).raise_for_status()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.http.aclose()

    @property
    def cookie(self) -> str:
        """The header that a browser would send."""
        return "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())

    def at(self, base: str) -> "Person":
        """The same session at another server."""
        return Person(base, self.http.cookies.jar)

    async def post(self, path: str, body: Any) -> httpx.Response:
        return await self.http.post(path, json=body, headers={"x-csrftoken": self.http.cookies["csrftoken"]})

    async def begin(self, id: str | None = None) -> str:
        """Create a conversation, unless it is there already."""
        response = await self.post("/api/conversations", {"id": id} if id else {})
        assert response.status_code == 201 or (id and response.status_code == 409), response.text
        return id or str(response.json()["id"])

    async def send(self, conversation: str, text: str, *, id: str) -> httpx.Response:
        """As the TanStack durable transport sends."""
        message = {"id": id, "role": "user", "parts": [{"type": "text", "content": text}]}
        return await self.post(f"/api/chat?id={conversation}", {"messages": [message]})

    async def submit(self, conversation: str, text: str, *, id: str) -> httpx.Response:
        """As the AI SDK durable transport sends."""
        message = {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}
        body = {"id": conversation, "messages": [message], "trigger": "submit-message", "messageId": None}
        return await self.post("/api/chat", body)

    async def stop(self, conversation: str) -> httpx.Response:
        return await self.post(f"/api/chat/{conversation}/stop", {})

    async def reconnect(self, conversation: str) -> httpx.Response:
        return await self.http.get(f"/api/chat/{conversation}/stream")

    async def hydrate(self, conversation: str) -> Item:
        response = await self.http.get(f"/api/conversations/{conversation}")
        assert response.status_code == 200, response.text
        hydrated: Item = response.json()
        return hydrated

    async def active(self, conversation: str) -> str | None:
        """The id of the run at work, by hydration."""
        active = (await self.hydrate(conversation))["activeRun"]
        return str(active["runId"]) if active else None

    async def idle(self, conversation: str) -> Item:
        """The conversation once no run is at work."""

        async def probe() -> Item | None:
            hydrated = await self.hydrate(conversation)
            return None if hydrated["activeRun"] else hydrated

        hydrated: Item = await until(probe)
        return hydrated

    async def transcript(self, conversation: str) -> tuple[list[Item], str]:
        """All that the stream holds, and its tail."""
        reader = DurableReader(self, conversation)
        while not reader.caught_up:
            await reader.connect()
        return reader.items, reader.offset


class Away(Exception):
    """A server that is there but asks to come again."""


class Reader(ABC):
    """Somebody who stays: reads from the beginning, and after every drop from where they were.

    Whoever changes ``person`` sends the next connection to another server. After a drop it goes to the next
    of ``elsewhere``, as behind a load balancer.
    """

    dropped = (httpx.TransportError, OSError, Away, websockets.ConnectionClosed, websockets.InvalidHandshake)

    def __init__(self, person: Person, conversation: str) -> None:
        self.person = person
        self.conversation = conversation
        self.elsewhere: Iterator[Person] = iter(())
        self.items: list[Item] = []
        self.closed = False

    @property
    def text(self) -> str:
        """What was said in pieces; of users too, where the reader sees them."""
        return "".join(item["delta"] for item in self.items if "delta" in item)

    async def arrives(self, *, at: list[Item] | None = None) -> None:
        """Until it has read exactly these items, or without them, until its stream is closed."""
        if at is None:
            await until(lambda: self.closed)
            return
        await until(lambda: len(self.items) >= len(at))
        assert self.items == at

    async def follow(self) -> None:
        while not self.closed:
            try:
                await self.connect()
            except self.dropped:
                self.person = next(self.elsewhere, self.person)
            await asyncio.sleep(RETRY_SECONDS)

    @abstractmethod
    async def connect(self) -> None:
        """Read over one connection until it ends or drops."""


class DurableReader(Reader):
    """The durable transports' reader: pages until up to date, then SSE; resumes behind the last control.

    With a ``run``, the AI SDK's reader of one run, which ends when that closes.
    """

    def __init__(self, person: Person, conversation: str, *, run: str | None = None) -> None:
        super().__init__(person, conversation)
        self.offset = "-1"
        self.caught_up = False
        self.cursor: str | None = None
        self._named = {"id": conversation} | ({"run": run} if run else {})

    async def connect(self) -> None:
        query = self._named | {"offset": self.offset}
        if self.caught_up:
            query |= {"live": "sse"} | ({"cursor": self.cursor} if self.cursor else {})
        async with self.person.http.stream("GET", "/api/chat-stream", params=query) as response:
            if response.status_code == 503:
                raise Away
            assert response.status_code == 200, await response.aread()
            await (self._events(response) if self.caught_up else self._page(response))

    async def _page(self, response: httpx.Response) -> None:
        self.items += json.loads(await response.aread())
        self.offset = response.headers["stream-next-offset"]
        self.caught_up = response.headers.get("stream-up-to-date") == "true"
        self.closed = response.headers.get("stream-closed") == "true"

    async def _events(self, response: httpx.Response) -> None:
        decoder, held = Decoder(), []
        async for piece in response.aiter_bytes():
            for event in decoder.feed(piece):
                if event.name == "data":
                    held += json.loads(event.data)
                    continue
                control = json.loads(event.data)
                self.items += held
                self.offset, self.cursor = control["streamNextOffset"], control.get("streamCursor")
                self.closed = control.get("streamClosed", False)
                held = []


class SocketReader(Reader):
    """The WebSocket's reader: resumes behind the last frame's id."""

    def __init__(self, person: Person, conversation: str) -> None:
        super().__init__(person, conversation)
        self._last = "-1"

    async def connect(self) -> None:
        base = self.person.base
        address = f"{base.replace('http', 'ws', 1)}/ws/chat/{self.conversation}?offset={self._last}"
        async with websockets.connect(
            address,
            additional_headers={"Cookie": self.person.cookie},
            origin=websockets.Origin(base),
            proxy=None,
        ) as socket:
            async for message in socket:
                frame = json.loads(message)
                if "chunk" in frame:
                    self.items.append(frame["chunk"])
                    self._last = frame["id"]
        assert socket.close_code not in (4400, 4404)


class Follower(Protocol):
    """Whoever has something to read for as long as it takes."""

    async def follow(self) -> None: ...


@asynccontextmanager
async def following(*followers: Follower) -> AsyncIterator[None]:
    """Let them read beside the test. What one of them finds wrong ends the test."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(follower.follow()) for follower in followers]
        yield
        for task in tasks:
            task.cancel()


async def asked(person: Person, text: str) -> tuple[str, str]:
    """A new conversation whose first answer is being written, and the id of that run."""
    conversation = await person.begin()
    assert (await person.send(conversation, text, id="m-1")).status_code == 202
    run_id = await person.active(conversation)
    assert run_id is not None
    return conversation, run_id
