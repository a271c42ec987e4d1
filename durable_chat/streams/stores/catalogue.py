"""What a store tells about all of its streams, and how those that have expired are erased."""

from dataclasses import dataclass
from typing import Protocol

from durable_chat.streams.stores.base import Stream, StreamStore


@dataclass(frozen=True, slots=True)
class Listed:
    """A stream and where it is. ``size`` is the number of bytes that the store keeps of its messages."""

    path: str
    stream: Stream
    size: int


class Catalogue(Protocol):
    """All streams of a store. What a call costs depends on its ``limit``, not on how many streams there are.

    Both methods raise ``Unavailable`` when the store cannot answer now.
    """

    async def scan(self, *, prefix: str = "", after: str = "", limit: int) -> list[Listed]:
        """The first streams whose path begins with ``prefix`` and follows ``after``, sorted by path.

        Paths sort by code point, as their UTF-8 does. Fewer than ``limit`` means that no more follow. What
        has expired or was deleted is not there; to be listed is no use of a stream.
        """

    async def sweep(self, *, limit: int) -> int:
        """Erase streams that have expired, ``limit`` of them at most; how many there were.

        Fewer than ``limit`` means that no more have. Stores do this by themselves too, sooner or later.
        """


class CataloguedStore(StreamStore, Catalogue, Protocol):
    """A store that knows its streams, as each of ours does."""
