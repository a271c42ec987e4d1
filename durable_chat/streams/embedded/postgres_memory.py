"""The rows as a process last saw them, so that most drains need not look them up."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from durable_chat.streams.protocol.producers import ProducerState
from durable_chat.streams.stores.drain import Row

_STREAMS: Final = 4_096
_PRODUCERS: Final = 64  # of one stream

Producers: TypeAlias = Mapping[str, ProducerState]


class Known(NamedTuple):
    """A row, the transaction that wrote it (``xmin``), and some of its producers.

    They change only together with the row.
    """

    row: Row
    version: int
    producers: Producers
    trusted: bool


class Memory:
    """What the transactions of one writer left in the tables. For its thread alone.

    It may be out of date, as other processes write too: who goes by it asks, in the transaction that does,
    whether the versions are still the same (``postgres_commit.at_once``). A stream that another process was
    seen to have written is not trusted until it once was not, or two that take turns would ask in vain.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, Known] = OrderedDict()

    def find(self, path: str) -> Known | None:
        """What can be gone by."""
        known = self._known.get(path)
        return known if known is not None and known.trusted else None

    def note(self, path: str, row: Row, producers: Producers, *, found: int, left: int) -> None:
        """A transaction found the row in the first of these versions, and left it as it is now in the other.

        ``found`` is 0 when it created the row.
        """
        before = self._known.pop(path, None)
        alone = before is None or not found
        if before is not None and before.version == found:
            alone, producers = True, {**before.producers, **producers}
        if len(producers) > _PRODUCERS:
            producers = dict(list(producers.items())[-_PRODUCERS:])
        self._known[path] = Known(row, left, producers, trusted=alone)
        if len(self._known) > _STREAMS:
            self._known.popitem(last=False)

    def forget(self, path: str) -> None:
        """The stream is no more, or takes no more."""
        self._known.pop(path, None)

    def clear(self) -> None:
        """Another connection may lead to another server, whose transactions have other numbers."""
        self._known.clear()
