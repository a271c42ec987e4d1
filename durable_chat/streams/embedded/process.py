"""One server a process: built when it is first needed, built anew when its settings have changed."""

import threading
from dataclasses import dataclass
from typing import Any

from django.core.signals import setting_changed
from django.dispatch import receiver

from durable_chat.streams.embedded import conf
from durable_chat.streams.embedded.asgi import Receive, Scope, Send, StreamsApplication
from durable_chat.streams.embedded.conf import StreamsConf
from durable_chat.streams.protocol.exchange import Request, Response
from durable_chat.streams.server.server import StreamServer
from durable_chat.streams.stores.memory import MemoryStore
from durable_chat.streams.stores.sqlite import SQLiteStore


@dataclass(frozen=True, slots=True)
class _Embedded:
    conf: StreamsConf
    store: MemoryStore | SQLiteStore
    server: StreamServer


_lock = threading.Lock()
_current: _Embedded | None = None


def server() -> StreamServer:
    """This process's server. Raises ``ImproperlyConfigured``."""
    return _embedded().server


async def handle(request: Request) -> Response:
    """A ``Handler`` that leads to whatever ``server`` is at the time."""
    return await server().handle(request)


async def application(scope: Scope, receive: Receive, send: Send, *, root: str = "/v1/stream/") -> None:
    """The server behind its tokens, as an ASGI application; ``root`` is the path that streams lie below."""
    embedded = _embedded()
    door = StreamsApplication(
        embedded.server.handle, root=root, access=embedded.conf.access, max_body=embedded.conf.max_body
    )
    await door(scope, receive, send)


def close() -> None:
    """End the server's threads and close its file, if there is a server. The next call builds another."""
    global _current
    with _lock:
        embedded, _current = _current, None
    if embedded is not None:
        embedded.store.close()


def _embedded() -> _Embedded:
    global _current
    if _current is not None:
        return _current
    with _lock:
        if _current is None:
            _current = _build(conf.load())
        return _current


def _build(settings: StreamsConf) -> _Embedded:
    store = (
        MemoryStore()
        if settings.sqlite_path is None
        else SQLiteStore(settings.sqlite_path, synchronous=settings.synchronous)
    )
    server = StreamServer(
        store,
        sse_seconds=settings.sse_seconds,
        long_poll_seconds=settings.long_poll_seconds,
        max_body=settings.max_body,
    )
    return _Embedded(settings, store, server)


@receiver(setting_changed)
def _forget(*, setting: str, **_: Any) -> None:
    if setting in {"DURABLE_STREAMS", "DATABASES"}:
        close()
