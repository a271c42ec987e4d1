"""What carries requests to a service: one function from what goes out to what comes back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from durable_chat.streams.protocol.exchange import Response


class Origin(NamedTuple):
    """Whom to connect to. ``host`` is ASCII, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: for a connection, for a request to go out, between two pieces of an answer, of a live one."""

    connect: float = 5.0
    write: float = 10.0
    read: float = 15.0
    live: float = 75.0  # a live read is rolled, or kept alive, by its server within about 60


@dataclass(slots=True)
class Outgoing:
    """A request that is ready to go: ``target`` and ``headers`` are checked, ``Host`` is among them.

    Their values are Latin-1, and hold secrets: they are never shown.
    """

    origin: Origin
    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    live: bool
    patience: Patience

    @property
    def silence(self) -> float:
        """Seconds that may pass between two pieces of the answer."""
        return self.patience.live if self.live else self.patience.read


class Transport(Protocol):
    """Connections of one event loop. What keeps the other side from answering is an ``OSError``.

    That of lost patience is a ``TimeoutError``; reading the body raises the same. A caller that is cancelled,
    or closes the answer before its end, gives the connection up at once. Headers of an answer are in lower
    case, those of one hop among them.
    """

    async def send(self, outgoing: Outgoing) -> Response: ...

    async def aclose(self) -> None: ...
