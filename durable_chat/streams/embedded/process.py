"""One server a process: built when it is first needed, built anew when its settings have changed."""

import os
import threading
from dataclasses import dataclass
from typing import Any, Protocol

from django.core.signals import setting_changed
from django.dispatch import receiver

from durable_chat.streams.departure import departure
from durable_chat.streams.embedded import conf
from durable_chat.streams.embedded.asgi import Application, Receive, Scope, Send, StreamsApplication
from durable_chat.streams.embedded.conf import StreamsConf
from durable_chat.streams.protocol.exchange import Request, Response
from durable_chat.streams.server.server import StreamServer
from durable_chat.streams.stores.catalogue import CataloguedStore
from durable_chat.streams.stores.memory import MemoryStore
from durable_chat.streams.stores.sqlite import SQLiteStore


class _Store(CataloguedStore, Protocol):
    """A store that ends without a loop."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Embedded:
    conf: StreamsConf
    store: _Store
    server: StreamServer


_lock = threading.Lock()
_inherited: list[object] = []
_current: _Embedded | None = None


def server() -> StreamServer:
    """This process's server. Raises ``ImproperlyConfigured``."""
    return _embedded().server


def store() -> CataloguedStore:
    """What this process's server keeps its streams in. Raises ``ImproperlyConfigured``."""
    return _embedded().store


async def handle(request: Request) -> Response:
    """A ``Handler`` that leads to whatever ``server`` is at the time."""
    return await server().handle(request)


async def application(scope: Scope, receive: Receive, send: Send, *, root: str = "/v1/stream/") -> None:
    """The server behind its tokens, as an ASGI application; ``root`` is the path that streams lie below."""
    embedded = _embedded()
    departure.watch()
    door = StreamsApplication(
        embedded.server.handle, root=root, access=embedded.conf.access, max_body=embedded.conf.max_body
    )
    await door(scope, receive, send)


def mount(django_application: Any, *, root: str = "/v1/stream/") -> Application:
    """The site's ASGI application: streams below ``root`` are answered here, all else by Django.

    Without Django's middleware and without a thread each. Raises ``ValueError`` for a root that does not
    begin and end with a slash.
    """
    if not (root.startswith("/") and root.endswith("/")):
        raise ValueError(f"The streams' root begins and ends with a slash, which {root!r} does not.")

    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] == "http" and path.startswith(root):
            await application(scope, receive, send, root=root)
        else:
            await django_application(scope, receive, send)

    return mounted


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
    store = _store(settings)
    server = StreamServer(
        store,
        sse_seconds=settings.sse_seconds,
        long_poll_seconds=settings.long_poll_seconds,
        max_body=settings.max_body,
    )
    return _Embedded(settings, store, server)


def _store(settings: StreamsConf) -> _Store:
    if settings.postgres:
        from durable_chat.streams.embedded.postgres import PostgresStore  # psycopg is not everybody's

        return PostgresStore(conf.connection_parameters, pooled=conf.is_pooled())
    if settings.sqlite_path is None:
        return MemoryStore()
    return SQLiteStore(
        settings.sqlite_path, synchronous=settings.synchronous, recent_bytes=settings.recent_bytes
    )


def _after_fork() -> None:
    """The store's threads are the parent's. Kept, not closed: closing would end the parent's connections."""
    global _current, _lock
    _inherited.append(_current)
    _current, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


@receiver(setting_changed)
def _forget(*, setting: str, **_: Any) -> None:
    if setting in {"DURABLE_STREAMS", "DATABASES"}:
        close()
