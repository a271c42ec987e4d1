"""Random operations on two stores at once: the same answers, and a stream is what was appended to it."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from durable_chat.streams.embedded.postgres import PostgresStore
from durable_chat.streams.protocol.errors import StreamError
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.protocol.producers import ProducerStamp
from durable_chat.streams.stores.base import Append, Appended, Batch, Created, NewStream, Page, Stream
from durable_chat.streams.stores.memory import MemoryStore
from durable_chat.streams.stores.sqlite import SQLiteStore
from tests.streams.postgres import Schema
from tests.streams.store_contract import ALL, JSON, TEXT, Clock, pages

NAMES = ["a", "b", "c"]
PATHS = st.sampled_from(NAMES)
TYPES = st.sampled_from([TEXT, JSON])
EXPIRIES = st.sampled_from([Expiry(), Expiry(), Expiry(ttl=100)])
STAMPS = st.none() | st.builds(
    ProducerStamp, st.sampled_from(["p", "q"]), epoch=st.integers(0, 2), seq=st.integers(0, 3)
)
FORKS = st.builds(
    Fork, PATHS, position=st.none() | st.integers(0, 6), sub_offset=st.sampled_from([0, 0, 0, 1, 2])
)
SEQS = st.none() | st.sampled_from(["1", "2", "3"])


def batch_of(content_type: str, units: list[bytes]) -> Batch:
    """Units as a store is given them: messages, or letters."""
    return Batch(joint(content_type).join(units), len(units))


def joint(content_type: str) -> bytes:
    return b"," if content_type == JSON else b""


def comparable(answer: object) -> object:
    """Without what each store draws for itself."""
    match answer:
        case Created() | Appended() | Page():
            return answer._replace(stream=comparable(answer.stream))
        case Stream():
            # A store may note reads behind its answers; tables of expiry say what follows from them.
            return answer._replace(tag="", touched=0.0)
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
        self.budgets = cycle([0, 3000, 1 << 20])  # of the memory, which may change no answer
        self.durable, self.other = self.open(), self.open()
        self.content: dict[str, list[bytes]] = {}  # what each stream holds, fork or not, in units
        self.digits = cycle(b"%d" % digit for digit in range(10))
        self.forked = False

    def open(self) -> SQLiteStore | PostgresStore:
        return SQLiteStore(self.path, clock=self.clock, synchronous="NORMAL", recent_bytes=next(self.budgets))

    def teardown(self) -> None:
        self.durable.close()
        self.other.close()
        self.runner.close()
        self.directory.cleanup()

    def ask(self, method: str, *arguments: Any, **options: Any) -> object:
        """What both stores answer, which has to be the same."""
        memory, durable = (
            self.runner.run(_answer(getattr(store, method)(*arguments, **options)))
            for store in (self.memory, self.durable)
        )
        assert comparable(memory) == comparable(durable)
        return memory

    @initialize(content_type=TYPES)
    def begin(self, content_type: str) -> None:
        self.create("a", content_type, 0)

    def units(self, count: int) -> list[bytes]:
        """That no two neighbours are alike shows where a fork was cut."""
        return list(islice(self.digits, count))

    def create(self, path: str, content_type: str, count: int, **fields: Any) -> None:
        units = self.units(count)
        new = NewStream(content_type, batch=batch_of(content_type, units), **fields)
        created = self.ask("create", path, new)
        if isinstance(created, Created) and created.new:
            self.content[path] = self.inherited(new.fork) + units
            assert created.stream.tail == len(self.content[path])

    def inherited(self, fork: Fork | None) -> list[bytes]:
        if fork is None:
            return []
        source = self.content[fork.source]
        position = len(source) if fork.position is None else fork.position
        assert position + fork.sub_offset <= len(source)
        return source[: position + fork.sub_offset]

    @rule(path=PATHS, content_type=TYPES, expiry=EXPIRIES, count=st.integers(0, 2), closed=st.booleans())
    def put(self, path: str, content_type: str, expiry: Expiry, count: int, closed: bool) -> None:
        self.create(path, content_type, count, expiry=expiry, closed=closed)

    @rule(path=PATHS, content_type=TYPES | st.just(""), fork=FORKS, expiry=EXPIRIES, count=st.integers(0, 2))
    def fork(self, path: str, content_type: str, fork: Fork, expiry: Expiry, count: int) -> None:
        self.forked = True
        self.create(path, content_type, count if content_type else 0, expiry=expiry, fork=fork)

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
        units = self.units(count)
        batch = batch_of(content_type, units)
        appended = self.ask("append", path, Append(batch, content_type, close, stamp, seq))
        if isinstance(appended, Appended) and appended.new:
            self.content[path] += units
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
        if self.forked:  # when an expired fork lets go of its source, if nobody asks for it, is a store's own
            self.ask("sweep", limit=100)

    @rule()
    def another_process_goes_on(self) -> None:
        """To a database, that is other connections, and so is another store in this one."""
        self.durable, self.other = self.other, self.durable

    @rule()
    def restart(self) -> None:
        self.durable.close()
        self.durable = self.open()

    @invariant()
    def a_stream_is_what_was_appended(self) -> None:
        for path in NAMES:
            if not isinstance(stream := self.ask("head", path), Stream):
                continue  # never created, deleted or expired
            between = joint(stream.content_type)
            for store in (self.memory, self.durable):
                found = self.runner.run(pages(store, path, limit=2))
                whole = between.join(page.data for page in found if page.data)
                assert whole == between.join(self.content[path])
                assert found[-1].end == stream.tail
                assert found[-1].closed == stream.closed
        self.settle()

    def settle(self) -> None:
        """Until the durable store has noted the reads so far, so that time may pass."""
        with suppress(StreamError):
            self.runner.run(self.durable.delete("nothing"))


async def _answer(asked: Awaitable[object]) -> object:
    try:
        return await asked
    except StreamError as error:
        return error


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


class PostgresStores(Stores):
    schema: ClassVar[Schema]

    def __init__(self) -> None:
        self.schema.empty()
        super().__init__()

    def open(self) -> PostgresStore:
        return PostgresStore(self.schema.parameters, clock=self.clock)


class TestPostgresStores(PostgresStores.TestCase):
    @pytest.fixture(autouse=True)
    def _schema(self, schema: Schema) -> None:
        PostgresStores.schema = schema


TestPostgresStores.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
