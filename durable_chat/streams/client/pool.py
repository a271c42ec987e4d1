"""The connections to services that one event loop has open, each kept for the next request."""

import asyncio
import socket
import ssl
from functools import lru_cache, partial
from typing import Final, TypeAlias

from aiohappyeyeballs import start_connection

from durable_chat.streams.client.connection import Connection, HungUp
from durable_chat.streams.client.transport import Origin, Outgoing
from durable_chat.streams.protocol.exchange import Response

KEPT_SECONDS: Final = 4.0
"""How long an idle connection is kept; servers hang up on theirs after five or more."""
_HEAD_START_SECONDS: Final = 0.25  # of an address before the next is tried beside it (RFC 8305)
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE"})

_Idle: TypeAlias = dict[Connection, float]
"""Since when; the one that was used last is the last."""


class Pool:
    """A ``Transport``, straight to the service. No cap: every live read holds a connection for a minute.

    A service may hang up on an idle connection while a request is on its way. One that may be asked twice is
    then asked again, over a new connection.
    """

    def __init__(self, *, kept_seconds: float = KEPT_SECONDS, tls: ssl.SSLContext | None = None) -> None:
        self.closed = False
        self._kept_seconds = kept_seconds
        self._tls = tls
        self._open: set[Connection] = set()
        self._idle: dict[Origin, _Idle] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    async def send(self, outgoing: Outgoing) -> Response:
        idle = self._idle.setdefault(outgoing.origin, {})
        kept = _usable(idle)
        if kept is not None:
            try:
                return await kept.ask(outgoing)
            except HungUp:
                if outgoing.method not in _IDEMPOTENT:
                    raise
        connection = await self._connected(outgoing, idle)
        return await connection.ask(outgoing)

    async def aclose(self) -> None:
        """Hang up on everybody."""
        self.closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        closing = [connection.closed for connection in self._open]
        for connection in list(self._open):
            connection.abort()
        if closing:
            await asyncio.wait(closing)

    async def _connected(self, outgoing: Outgoing, idle: _Idle) -> Connection:
        origin = outgoing.origin
        tls = (self._tls or _verified()) if origin.scheme == "https" else None
        make = partial(Connection, idle=partial(self._keep, idle), gone=partial(self._forget, idle))
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(outgoing.patience.connect):
            addresses = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
            opened = await start_connection(addresses, happy_eyeballs_delay=_HEAD_START_SECONDS)
            _, connection = await loop.create_connection(
                make, sock=opened, ssl=tls, server_hostname=origin.host if tls else None
            )
        if connection.usable:
            self._open.add(connection)
        return connection

    def _keep(self, idle: _Idle, connection: Connection) -> None:
        if self.closed:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        idle[connection] = loop.time()
        if self._sweeping is None:
            self._sweeping = loop.call_later(self._kept_seconds, self._sweep)

    def _forget(self, idle: _Idle, connection: Connection) -> None:
        idle.pop(connection, None)
        self._open.discard(connection)

    def _sweep(self) -> None:
        """Hang up on those that nobody has used for long, and look again when the next is due."""
        loop = asyncio.get_running_loop()
        due = loop.time() - self._kept_seconds
        for idle in self._idle.values():
            for connection in [each for each, since in idle.items() if since <= due]:
                del idle[connection]
                connection.abort()
        waiting = [next(iter(idle.values())) for idle in self._idle.values() if idle]
        when = min(waiting, default=None)
        self._sweeping = None if when is None else loop.call_at(when + self._kept_seconds, self._sweep)


def _usable(idle: _Idle) -> Connection | None:
    while idle:
        connection, _ = idle.popitem()
        if connection.usable:
            return connection
    return None


@lru_cache(maxsize=1)
def _verified() -> ssl.SSLContext:
    """By the system's certificates; loading them takes a while."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
