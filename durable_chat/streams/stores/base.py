"""What a store keeps and answers: the interface, and the values that cross it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self

from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.protocol.headers import is_json
from durable_chat.streams.protocol.producers import ProducerStamp, ProducerState


class Batch(NamedTuple):
    """What one request appends. It is stored as it is and read back whole.

    ``data`` is the messages of a JSON stream joined by commas, or the bytes of any other; ``length`` is how
    far it moves the tail: the number of those messages, or of those bytes.
    """

    data: bytes = b""
    length: int = 0


class NewStream(NamedTuple):
    """What a PUT asks for (section 5.1). A fork without a content type has its source's (section 4.2)."""

    content_type: str
    expiry: Expiry = Expiry()
    batch: Batch = Batch()
    closed: bool = False
    fork: Fork | None = None


class Append(NamedTuple):
    """What a POST asks for (section 5.2). An empty batch with ``close`` only closes."""

    batch: Batch = Batch()
    content_type: str = ""
    close: bool = False
    producer: ProducerStamp | None = None
    stream_seq: str | None = None


class Stream(NamedTuple):
    """The state of a stream at one moment.

    ``tag`` is drawn at random when the stream is created, which tells a stream that was created anew at the
    same path from the old one. ``touched`` is when it was last used, in Unix seconds. ``forks`` counts the
    streams that were forked from it and are still kept; as long as there are any, so is a ``deleted`` stream.
    """

    tag: str
    content_type: str
    expiry: Expiry
    tail: int
    closed: bool
    closed_by: ProducerStamp | None
    last_seq: str | None
    touched: float
    fork: Fork | None = None
    forks: int = 0
    deleted: bool = False

    @property
    def joint(self) -> bytes:
        """What stands between two batches: the messages of a JSON stream are joined by commas."""
        return b"," if is_json(self.content_type) else b""

    @property
    def start(self) -> int:
        """Where its own batches begin: what lies before is its source's."""
        return 0 if self.fork is None else self.fork.position or 0

    @property
    def ends(self) -> float | None:
        """When it expires if it is not used again, in Unix seconds; None: never."""
        return None if self.deleted else self.expiry.ends(touched=self.touched)


class Created(NamedTuple):
    """``new`` is False when a stream of the same configuration was there already."""

    stream: Stream
    new: bool


class Appended(NamedTuple):
    """``new`` is False when the request had been carried out before. ``producer`` is its state after it."""

    stream: Stream
    new: bool
    producer: ProducerState | None


class Page(NamedTuple):
    """One consistent snapshot: batches in a row from ``start`` on, and the stream as it was then.

    ``pieces[i]`` are the bytes of the batch after which the position is ``ends[i]``.
    """

    stream: Stream
    start: int
    ends: Sequence[int] = ()
    pieces: Sequence[bytes] = ()

    @classmethod
    def of(cls, stream: Stream, batch: Batch) -> Self:
        """The batch that has just made a stream what it is."""
        if not batch.length:
            return cls(stream, stream.tail)
        return cls(stream, stream.tail - batch.length, [stream.tail], [batch.data])

    @property
    def end(self) -> int:
        return self.ends[-1] if self.ends else self.start

    @property
    def data(self) -> bytes:
        """All of it as one ``Batch`` has it. Joined whenever it is asked for."""
        return self.stream.joint.join(self.pieces)

    @property
    def up_to_date(self) -> bool:
        return self.end == self.stream.tail

    @property
    def closed(self) -> bool:
        """Whether this page ends where the stream ends for ever."""
        return self.stream.closed and self.up_to_date


class StreamStore(Protocol):
    """Streams by path. Usable from any number of event loops and threads of a process at once.

    Every method but ``wait`` and ``aclose`` raises ``Unavailable`` when the store cannot answer now; what was
    refused so may still have been written, which is what producers are for. A stream that has expired is as
    good as deleted: it is not there, or ``StreamGone`` while it has forks. What a returned ``create``,
    ``append`` or ``delete`` did is as durable as the store ever makes it.
    """

    async def create(self, path: str, new: NewStream) -> Created:
        """Create the stream with its first batch. Raises ``StreamExists`` if it is there but not the same.

        A fork refers to its source's batches (``rules.check_fork`` has the errors).
        """

    async def append(self, path: str, append: Append) -> Appended:
        """Append, close, or both at once, if the rules allow (``rules.check_append`` has the errors)."""

    async def head(self, path: str) -> Stream:
        """The stream's state, without counting as use of it. Raises ``StreamNotFound`` or ``StreamGone``."""

    async def read(self, path: str, position: int | None, *, limit: int) -> Page:
        """What follows ``position`` (``None``: the tail), at least one batch and about ``limit`` bytes.

        Raises ``StreamNotFound``, ``StreamGone`` and, for a position at which no batch ends,
        ``InvalidOffset``.
        """

    async def delete(self, path: str) -> None:
        """Delete the stream and erase its bytes, or have its last fork's end do so.

        Raises ``StreamNotFound``, and ``StreamGone`` if that is what it waits for already.
        """

    async def wait(self, path: str, position: int, *, timeout: float) -> None:
        """Return once the tail is past ``position``, the stream closed or gone, or ``timeout`` s over."""

    async def aclose(self) -> None:
        """End what the store runs and holds. Whoever calls it afterwards gets ``Unavailable``."""
