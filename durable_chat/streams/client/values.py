"""What a client learns from answers, and the stamp that makes an append safe to repeat."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from durable_chat.streams.hub import Frame
from durable_chat.streams.protocol.offsets import NOW


@dataclass(frozen=True, slots=True)
class Batch:
    """One page, or one data-and-control pair of a live read, of a JSON stream.

    ``items`` are parsed messages and may be none; ``before`` is the offset before the first of them (START or
    one that the server issued), ``offset`` the one after the last.
    """

    items: tuple[Any, ...]
    before: str
    offset: str
    up_to_date: bool
    closed: bool

    @classmethod
    def of(cls, frame: Frame, *, after: str) -> Self:
        """A frame that was read after an offset. Raises ``Unavailable`` when it is no list of messages."""
        before = frame.start if after == NOW else after
        return cls(frame.messages, before, frame.end, frame.up_to_date, frame.closed)


@dataclass(frozen=True, slots=True)
class Head:
    """What HEAD tells of a stream (section 5.5): its tail, whether it is closed, its content type."""

    offset: str
    closed: bool
    content_type: str


@dataclass(frozen=True, slots=True)
class Appended:
    """An append that the server has taken. A ``duplicate`` was taken before and may carry no offset."""

    offset: str | None
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Stamp:
    """Who appends, in which generation, which batch: the same stamp is taken once (section 5.2.1)."""

    id: str
    epoch: int
    seq: int

    @property
    def headers(self) -> Mapping[str, str]:
        return {"producer-id": self.id, "producer-epoch": str(self.epoch), "producer-seq": str(self.seq)}
