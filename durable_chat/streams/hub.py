"""One live tail per (event loop, stream), shared by all its readers, over a store or another source."""

import asyncio
import contextvars
import threading
import time
from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, Self, TypeAlias, TypeVar

import orjson

from durable_chat.streams.departure import departure
from durable_chat.streams.protocol import cursors, json_mode, sse
from durable_chat.streams.protocol.errors import BadRequest, StreamNotFound, Unavailable
from durable_chat.streams.protocol.headers import is_json, is_text
from durable_chat.streams.protocol.offsets import decode, encode
from durable_chat.streams.stores.base import Page, StreamStore

T = TypeVar("T")

# A stream that expires wakes nobody, so a tail that hears nothing looks for itself now and then.
_SILENCE_SECONDS: Final = 15.0

_LONG_SECONDS: Final = 3600.0


class _Between(NamedTuple):
    tag: str
    content_type: str
    start: str
    end: str
    body: bytes
    up_to_date: bool
    closed: bool
    ttl: int | None = None


class Frame(_Between):
    """What lies between two offsets, and the stream as it was then. All readers are given the same one.

    ``body`` is what a plain read answers; ``tag`` tells a stream from another that took its path; ``ttl`` is
    its time to live in seconds, if it has one. Without slots, as a frame keeps what it was once encoded to.
    """

    @cached_property
    def data(self) -> bytes:
        """The data event; nothing when nothing lies between the offsets."""
        if self.start == self.end:
            return b""
        return (sse.data if is_text(self.content_type) else sse.binary)(self.body)

    @cached_property
    def messages(self) -> tuple[Any, ...]:
        """A JSON stream's messages, parsed once for all. Raises ``Unavailable`` when they are garbled."""
        try:
            messages = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            raise Unavailable("The stream service sent something that is not JSON.") from None
        if not isinstance(messages, list):
            raise Unavailable("The stream service sent something that is not a list of messages.")
        return tuple(messages)

    @cached_property
    def _made(self) -> dict[Callable[["Frame"], Any], Any]:
        return {}

    def once(self, make: Callable[["Frame"], T]) -> T:
        """What ``make`` makes of this frame: made for the first who asks, and kept for all others."""
        if make not in self._made:
            self._made[make] = make(self)
        made: T = self._made[make]
        return made

    @cached_property
    def cursor(self) -> int:
        """The cursor of ``pair``: that of the moment at which it was first asked for (section 10.1)."""
        return int(cursors.issue(None, now=time.time(), jitter=0))

    @cached_property
    def pair(self) -> bytes:
        """The data event and its control event, for every reader whose own cursor is not ahead."""
        return self.data + self.control(self.cursor)

    def control(self, cursor: int) -> bytes:
        """The control event with another cursor than the shared one (section 5.8)."""
        return sse.control(self.end, cursor=str(cursor), up_to_date=self.up_to_date, closed=self.closed)


class Source(Protocol):
    """Where frames come from: a store, or a service behind HTTP. Offsets are the source's own text."""

    async def read(self, path: str, offset: str) -> Frame:
        """What follows ``offset``, as far as one page goes; no less than ``follow`` has given already.

        Raises any ``StreamError``.
        """

    def follow(self, path: str, frame: Frame) -> AsyncGenerator[Frame, None]:
        """What follows ``frame``, each frame from where the last one ended, until the stream is closed.

        None but the closing one is empty. Raises ``StreamNotFound`` once the stream is gone, be it that
        another took its path, and any ``StreamError`` when the source can tell no more.
        """


@dataclass(frozen=True, slots=True)
class StoreSource:
    """A store's streams, in pages of about ``page_bytes``. Implements ``Source``."""

    store: StreamStore
    page_bytes: int

    async def read(self, path: str, offset: str) -> Frame:
        return _frame(await self.store.read(path, decode(offset), limit=self.page_bytes))

    async def follow(self, path: str, frame: Frame) -> AsyncGenerator[Frame, None]:
        while not frame.closed:
            if frame.up_to_date:
                position = decode(frame.end) or 0  # None is "now", which no frame ends at
                await self.store.wait(path, position, timeout=_patience(frame))
            last, frame = frame, await self.read(path, frame.end)
            if frame.tag != last.tag:
                raise StreamNotFound
            if frame.end > last.end or frame.closed:
                yield frame


def _frame(page: Page) -> Frame:
    stream = page.stream
    return Frame(
        stream.tag,
        stream.content_type,
        encode(page.start),
        encode(page.end),
        json_mode.array(page.data) if is_json(stream.content_type) else page.data,
        page.up_to_date,
        page.closed,
        stream.expiry.ttl,
    )


def _patience(frame: Frame) -> float:
    # Readers that wait are a use of the stream: it is read again before its time to live is up (5.1).
    return _SILENCE_SECONDS if frame.ttl is None else min(_SILENCE_SECONDS, frame.ttl / 2)


@dataclass(frozen=True, slots=True)
class Room:
    """How many frames, and bytes of their bodies, a tail keeps for readers that are a little behind.

    It keeps no more than one for readers that are not. Who is further behind reads the source.
    """

    frames: int = 256
    size: int = 1024 * 1024


class Hub:
    """The live reads of a source. Usable from any number of event loops and threads at once.

    It runs one task for each stream that a loop has readers at the end of, and none without readers. What it
    holds does not grow with their number, nor with how slow they are.
    """

    def __init__(self, source: Source, *, room: Room | None = None) -> None:
        self._source = source
        self._room = room or Room()
        self._lock = threading.Lock()
        self._loops: dict[AbstractEventLoop, _Tails] = {}
        departure.tell(self)

    def let_go(self) -> None:
        """Rouse every reader that waits: it is given nothing, and sees for itself whether to wait on."""
        with self._lock:
            loops = dict(self._loops)
        for loop, tails in loops.items():
            with suppress(RuntimeError):  # it has ended, and its readers with it
                loop.call_soon_threadsafe(_rouse, tails)

    async def read(self, path: str, offset: str) -> Frame:
        """What is there now. Raises any ``StreamError``."""
        return await self._source.read(path, offset)

    async def follow(self, path: str, offset: str) -> AsyncGenerator[Frame, None]:
        """What is there from ``offset`` on, be it nothing, and what follows, until the stream is closed.

        Raises any ``StreamError``: whoever reads asks again, from the last frame's end. Close the generator
        (``aclosing``) to leave.
        """
        frame = await self.read(path, offset)
        yield frame
        async with self.reader(path) as reader:
            while not frame.closed:
                following = await reader.after(frame, until=get_running_loop().time() + _LONG_SECONDS)
                if following is not None:
                    frame = following
                    yield frame

    def reader(self, path: str) -> "Reader":
        """One reader of a stream, for use on the running loop, within ``async with``."""
        return Reader(self._source, path, tails=self._tails(), room=self._room)

    def _tails(self) -> "_Tails":
        loop = get_running_loop()
        with self._lock:
            if loop not in self._loops:
                self._loops = {each: tails for each, tails in self._loops.items() if not each.is_closed()}
                self._loops[loop] = {}
            return self._loops[loop]


class Reader:
    """Goes from frame to frame, each from where the last one ended; with the others while it keeps up."""

    def __init__(self, source: Source, path: str, *, tails: "_Tails", room: Room) -> None:
        self._source = source
        self._path = path
        self._tails = tails
        self._room = room
        self._tail: _Tail | None = None

    async def __aenter__(self) -> Self:
        departure.readers.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the tail, and end it if nobody else reads there."""
        departure.readers.discard(self)
        tail, self._tail = self._tail, None
        if tail is not None:
            await self._leave(tail)

    async def after(self, frame: Frame, *, until: float) -> Frame | None:
        """The frame that follows; ``None`` if none does until the loop's clock says ``until``.

        Raises ``StreamNotFound`` when the stream is gone, be it that another took its path, and any
        ``StreamError`` of the source: whoever reads asks again, from the last frame's end.
        """
        if self._tail is None and frame.up_to_date:
            self._tail = self._join(frame)
        while (tail := self._tail) is not None:
            if (following := tail.recent.get(frame.end)) is not None:
                return following
            if frame.end < tail.end or tail.is_over():
                break  # behind what the tail remembers, or between two of its frames
            if not await tail.moved(until):
                return None
        with _offsets_given():
            following = await self._source.read(self._path, frame.end)
        if following.tag != frame.tag or following.end < frame.end:
            raise StreamNotFound
        if tail is not None and following.end == frame.end < tail.end:
            raise Unavailable  # it has told more already: asked again at once, it would be asked for ever
        return following

    def _join(self, frame: Frame) -> "_Tail":
        key = (self._path, frame.tag)
        tail = self._tails.get(key)
        if tail is None or tail.task.done():
            tail = self._tails[key] = _Tail(
                key, frame.end, frames=self._source.follow(self._path, frame), room=self._room
            )
        tail.readers += 1
        return tail

    async def _leave(self, tail: "_Tail") -> None:
        tail.readers -= 1
        if tail.readers:
            return
        if self._tails.get(tail.key) is tail:
            del self._tails[tail.key]
        tail.task.cancel()
        await asyncio.wait({tail.task})  # no task outlives those it worked for


class _Tail:
    """What the readers of one stream on one loop share: the task that follows it, and what came last.

    ``recent`` holds frames by the offset that they start at, and ``end`` is where the last one ended.
    """

    def __init__(
        self, key: tuple[str, str], end: str, *, frames: AsyncGenerator[Frame, None], room: Room
    ) -> None:
        self.key = key
        self.end = end
        self._room = room
        self.readers = 0
        self.recent: dict[str, Frame] = {}
        self._size = 0
        self._waiting: dict[asyncio.Future[bool], float] = {}  # each with the moment it gives up at
        self._alarm: asyncio.TimerHandle | None = None
        # A context of its own: the first reader's would keep alive whatever its request holds.
        self.task = get_running_loop().create_task(self._follow(frames), context=contextvars.Context())
        self.task.add_done_callback(self._ended)

    def is_over(self) -> bool:
        """Whether the stream was closed. Raises what the source raised."""
        if not self.task.done():
            return False
        if self.task.cancelled():
            raise Unavailable
        self.task.result()
        return True

    async def moved(self, until: float) -> bool:
        """Wait until there is something new to look at; ``False`` if there is not by then."""
        woken: asyncio.Future[bool] = get_running_loop().create_future()
        self._waiting[woken] = until
        if self._alarm is None or until < self._alarm.when():
            self._set_alarm(until)
        try:
            return await woken
        finally:
            self._waiting.pop(woken, None)

    def _set_alarm(self, moment: float) -> None:
        # One for all, set anew when it has rung: a timer for each wait costs more than the rest of the wait.
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = get_running_loop().call_at(moment, self._ring)

    def _ring(self) -> None:
        now = get_running_loop().time()
        for woken, until in self._waiting.items():
            if until <= now:
                _settle(woken, False)
        self._alarm = None
        patient = [until for woken, until in self._waiting.items() if not woken.done()]
        if patient:
            self._set_alarm(min(patient))

    async def _follow(self, frames: AsyncGenerator[Frame, None]) -> None:
        with _offsets_given():
            async with aclosing(frames):
                async for frame in frames:
                    self._publish(frame)

    def _publish(self, frame: Frame) -> None:
        if len(self._waiting) == self.readers:  # nobody needs what came before
            self.recent.clear()
            self._size = 0
        self.recent[frame.start] = frame
        self._size += len(frame.body)
        while len(self.recent) > 1 and (len(self.recent) > self._room.frames or self._size > self._room.size):
            self._size -= len(self.recent.pop(next(iter(self.recent))).body)
        self.end = frame.end
        self._wake()

    def rouse(self) -> None:
        for woken in self._waiting:
            _settle(woken, False)

    def _wake(self) -> None:
        for woken in self._waiting:
            _settle(woken, True)
        self._waiting.clear()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            task.exception()  # the readers raise it, if there are any left
        if self._alarm is not None:
            self._alarm.cancel()
        self._wake()


_Tails: TypeAlias = dict[tuple[str, str], _Tail]


def _rouse(tails: _Tails) -> None:
    for tail in tails.values():
        tail.rouse()


@contextmanager
def _offsets_given() -> Iterator[None]:
    """Who refuses an offset that this stream has given is another one, which has taken the path."""
    try:
        yield
    except BadRequest:
        raise StreamNotFound from None


def _settle(woken: "asyncio.Future[bool]", outcome: bool) -> None:
    if not woken.done():
        woken.set_result(outcome)
