"""Random operations on two stores at once: the same answers, and a stream is what was appended to it."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from durable_chat.streams.protocol.errors import StreamError
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.producers import ProducerStamp
from durable_chat.streams.stores.base import Append, Appended, Batch, Created, NewStream, Page, Stream
from durable_chat.streams.stores.memory import MemoryStore
from durable_chat.streams.stores.sqlite import SQLiteStore
from tests.streams.store_contract import ALL, JSON, TEXT, Clock, pages

PATHS = st.sampled_from(["a", "b"])
TYPES = st.sampled_from([TEXT, JSON])
EXPIRIES = st.sampled_from([Expiry(), Expiry(), Expiry(ttl=100)])
STAMPS = st.none() | st.builds(
    ProducerStamp, st.sampled_from(["p", "q"]), epoch=st.integers(0, 2), seq=st.integers(0, 3)
)
SEQS = st.none() | st.sampled_from(["1", "2", "3"])


def batch_for(content_type: str, count: int) -> Batch:
    """``count`` messages, or as many letters."""
    return Batch(b",".join([b"1"] * count) if content_type == JSON else b"x" * count, count)


def comparable(answer: object) -> object:
    """Without what each store draws for itself."""
    match answer:
        case Created() | Appended() | Page():
            return replace(answer, stream=comparable(answer.stream))
        case Stream():
            # A store may note reads behind its answers; tables of expiry say what follows from them.
            return replace(answer, tag="", touched=0.0)
        case StreamError():
            return type(answer), answer.headers
    return answer


class Stores(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = TemporaryDirectory()
        self.path = Path(self.directory.name) / "streams.sqlite3"
        self.clock = Clock()
        self.memory = MemoryStore(clock=self.clock)
        self.sqlite = SQLiteStore(self.path, clock=self.clock, synchronous="NORMAL")
        self.content: dict[str, list[bytes]] = {}

    def teardown(self) -> None:
        self.sqlite.close()
        self.runner.close()
        self.directory.cleanup()

    def ask(self, method: str, *arguments: Any, **options: Any) -> object:
        """What both stores answer, which has to be the same."""
        memory, sqlite = (
            self.runner.run(_answer(getattr(store, method)(*arguments, **options)))
            for store in (self.memory, self.sqlite)
        )
        assert comparable(memory) == comparable(sqlite)
        return memory

    @initialize(content_type=TYPES)
    def begin(self, content_type: str) -> None:
        self.create("a", NewStream(content_type))

    def create(self, path: str, new: NewStream) -> None:
        created = self.ask("create", path, new)
        if isinstance(created, Created) and created.new:
            self.content[path] = [new.batch.data] if new.batch.length else []

    @rule(path=PATHS, content_type=TYPES, expiry=EXPIRIES, count=st.integers(0, 2), closed=st.booleans())
    def put(self, path: str, content_type: str, expiry: Expiry, count: int, closed: bool) -> None:
        self.create(path, NewStream(content_type, expiry, batch_for(content_type, count), closed))

    @rule(
        path=PATHS, content_type=TYPES, count=st.integers(1, 3), close=st.booleans(), stamp=STAMPS, seq=SEQS
    )
    def append(
        self,
        path: str,
        content_type: str,
        count: int,
        close: bool,
        stamp: ProducerStamp | None,
        seq: str | None,
    ) -> None:
        batch = batch_for(content_type, count)
        appended = self.ask("append", path, Append(batch, content_type, close, stamp, seq))
        if isinstance(appended, Appended) and appended.new:
            self.content[path].append(batch.data)
            assert appended.stream.closed is close

    @rule(path=PATHS, stamp=STAMPS)
    def close(self, path: str, stamp: ProducerStamp | None) -> None:
        self.ask("append", path, Append(close=True, producer=stamp))

    @rule(path=PATHS, position=st.none() | st.integers(0, 8), limit=st.sampled_from([1, 3, ALL]))
    def read(self, path: str, position: int | None, limit: int) -> None:
        self.ask("read", path, position, limit=limit)
        self.settle()

    @rule(path=PATHS)
    def delete(self, path: str) -> None:
        if self.ask("delete", path) is None:
            del self.content[path]

    @rule(seconds=st.sampled_from([5.0, 60.0, 200.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def restart(self) -> None:
        self.sqlite.close()
        self.sqlite = SQLiteStore(self.path, clock=self.clock, synchronous="NORMAL")

    @invariant()
    def a_stream_is_what_was_appended(self) -> None:
        for path in ("a", "b"):
            if not isinstance(stream := self.ask("head", path), Stream):
                continue  # never created, deleted or expired
            joint = b"," if stream.content_type == JSON else b""
            for store in (self.memory, self.sqlite):
                found = self.runner.run(pages(store, path, limit=2))
                whole = joint.join(page.data for page in found if page.data)
                assert whole == joint.join(self.content[path])
                assert found[-1].end == stream.tail
                assert found[-1].closed == stream.closed
        self.settle()

    def settle(self) -> None:
        """Until the SQLite store has noted the reads so far, so that time may pass."""
        with suppress(StreamError):
            self.runner.run(self.sqlite.delete("nothing"))


async def _answer(asked: Awaitable[object]) -> object:
    try:
        return await asked
    except StreamError as error:
        return error


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
