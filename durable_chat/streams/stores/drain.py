"""All that is queued for a store, as one transaction: what is decided about it, in memory."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from durable_chat.streams.protocol.errors import StreamError
from durable_chat.streams.protocol.producers import ProducerStamp, ProducerState
from durable_chat.streams.stores import rules
from durable_chat.streams.stores.base import Batch, Page, Stream
from durable_chat.streams.stores.jobs import Job, Outcome


class Row(NamedTuple):
    """A stream and the key of its row."""

    id: int
    stream: Stream


@dataclass(slots=True, eq=False)
class Write:
    """Work on a drain, and what is best looked up before it begins. ``size`` is what it adds, in bytes.

    One that ``reads`` wants what was asked for before it to be in the tables.
    """

    work: "Callable[[Drain], Any]"
    paths: tuple[str, ...] = ()
    producer: ProducerStamp | None = None
    creates: bool = False
    deletes: bool = False
    reads: bool = False
    size: int = 0

    def __call__(self, drain: "Drain") -> Any:
        return self.work(drain)


@dataclass(slots=True)
class Entry:
    """A stream as it is by now.

    ``before`` is what its row says, if there is one, and ``version`` by whom, where a store asks for that.
    ``producers`` are those that are known, ``None`` if the stream remembers none by that id; ``stamped`` are
    those that changed. ``grown`` is by how many bytes.
    """

    row: Row
    before: Stream | None = None
    version: int = 0
    producers: dict[str, ProducerState | None] = field(default_factory=dict)
    stamped: set[str] = field(default_factory=set)
    grown: int = 0


class Drain(ABC):
    """What a transaction knows, and is to write before it ends.

    ``moved`` is the tail of each stream that got one; ``None``: closed or gone. ``changed`` are the streams
    that are no longer what their rows say, ``forgotten`` the keys of those whose producers are to go,
    ``erased`` of those that are to go altogether. A batch is the stream's key, its end, its start, its bytes.
    """

    def __init__(self) -> None:
        self.entries: dict[str, Entry | None] = {}
        self.changed: dict[str, Entry] = {}
        self.moved: dict[str, int | None] = {}
        self.forgotten: list[int] = []
        self.erased: list[int] = []
        self.batches: list[tuple[int, int, int, bytes]] = []

    @abstractmethod
    def look_ahead(self, *paths: str) -> None:
        """Have entries for what is kept at these paths, ``None`` where nothing is."""

    @abstractmethod
    def page(self, row: Row, start: int, *, limit: int) -> Page:
        """What follows a position in the tables, for a write that ``reads``."""

    @abstractmethod
    def _new(self, path: str, stream: Stream, size: int) -> Entry:
        """What a stream that is created begins as."""

    @abstractmethod
    def _state(self, entry: Entry, producer_id: str) -> ProducerState | None:
        """What the stream remembers of a producer."""

    def find(self, path: str) -> Row | None:
        """What is kept at a path, expired and deleted or not."""
        if path not in self.entries:
            self.look_ahead(path)
        entry = self.entries[path]
        return None if entry is None else entry.row

    def producer_of(self, path: str, stamp: ProducerStamp) -> ProducerState | None:
        """What the stream remembers of the producer that signs itself so."""
        return self._state(self._there(path), stamp.producer_id)

    def insert(self, path: str, stream: Stream, batch: Batch) -> None:
        """A new stream with its first batch."""
        entry = self._new(path, stream, len(batch.data))
        self.entries[path] = self.changed[path] = entry
        self._add(path, entry.row, batch)

    def append(self, path: str, stream: Stream, batch: Batch) -> None:
        """What an append makes of a stream, and its batch."""
        entry = self.update(path, stream)
        entry.grown += len(batch.data)
        self._add(path, entry.row, batch)
        if self.moved.get(path, 0) is not None:  # gone wakes everybody, also if there is another by now
            self.moved[path] = None if stream.closed else stream.tail

    def update(self, path: str, stream: Stream) -> Entry:
        """A stream's new state."""
        entry = self.changed[path] = self._there(path)
        entry.row = Row(entry.row.id, stream)
        return entry

    def remember(self, path: str, stamp: ProducerStamp) -> None:
        """Note a producer's batch as its last."""
        entry = self._there(path)
        entry.producers[stamp.producer_id] = ProducerState(stamp.epoch, stamp.seq)
        entry.stamped.add(stamp.producer_id)

    def delete(self, path: str) -> None:
        """Delete a stream: now, or once its last fork has ended."""
        entry = self._there(path)
        self.moved[path] = None
        self.forgotten.append(entry.row.id)
        entry.stamped.clear()
        entry.producers.clear()
        row = self.update(path, entry.row.stream._replace(deleted=True)).row
        while rules.is_left(row.stream):
            self._erase(path)
            if row.stream.fork is None:
                return
            path = row.stream.fork.source
            source = self.find(path)
            assert source is not None  # it is kept as long as it has forks
            row = self.update(path, rules.released(source.stream)).row

    def _there(self, path: str) -> Entry:
        entry = self.entries[path]
        assert entry is not None
        return entry

    def _add(self, path: str, row: Row, batch: Batch) -> None:
        if batch.length:
            tail = row.stream.tail
            self.batches.append((row.id, tail, tail - batch.length, batch.data))

    def _erase(self, path: str) -> None:
        gone = self._there(path)
        self.entries[path] = None
        del self.changed[path]
        self.batches = [batch for batch in self.batches if batch[0] != gone.row.id]
        if gone.before is not None:
            self.erased.append(gone.row.id)


def decide(job: Job[Drain], drain: Drain) -> Outcome:
    """What comes of a job; a refusal is an outcome too. Raises what nobody foresaw."""
    try:
        return Outcome(job, job.work(drain))
    except StreamError as error:
        return Outcome(job, error=error)  # the rules are asked before anything is changed
