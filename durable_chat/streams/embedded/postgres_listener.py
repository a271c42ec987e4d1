"""How a process hears of what the others commit: LISTEN on one connection, or polling without it."""

import logging
import selectors
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Final

import orjson
import psycopg

from durable_chat.streams.embedded import postgres_tables as tables
from durable_chat.streams.embedded.postgres_commit import CHANNEL
from durable_chat.streams.embedded.postgres_connection import Connection, Database
from durable_chat.streams.stores.waiters import Waiters

logger = logging.getLogger(__name__)

_POLL_SECONDS: Final = 0.02
_PROOF_SECONDS: Final = 1.0
_HEARTBEAT_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.5


class Listener(threading.Thread):
    """Wakes the waiters for whatever another process did. Started when somebody first waits.

    A connection that is lost is opened again; what was missed meanwhile is looked up. Behind a pooler, LISTEN
    may succeed and nothing ever arrive: so it is tried out, and where it does not work the tails are polled,
    for as long as somebody waits.
    """

    def __init__(self, database: Database, waiters: Waiters) -> None:
        super().__init__(name="durable-streams-listener", daemon=True)
        self._database = database
        self._waiters = waiters
        self._lock = threading.Lock()
        self._stopped = False
        self._polls = False
        self._heard: deque[str] = deque()  # payloads, whoever took them in
        self._looked = 0.0
        self._bell, self._button = socket.socketpair()
        self._bell.setblocking(False)

    def attend(self) -> None:
        """Somebody waits: begin to listen, and to poll if need be."""
        if self.ident is None:
            with self._lock:
                if self.ident is None and not self._stopped:
                    self.start()
        elif self._polls:
            self._ring()

    def close(self) -> None:
        """End the thread. Once closed, closing does nothing."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
        self._ring()
        if self.ident is not None:
            self.join()
        self._bell.close()
        self._button.close()

    def run(self) -> None:
        while not self._stopped:
            try:
                with self._database.connect("listener") as connection:
                    self._heard.clear()
                    connection.add_notify_handler(lambda notice: self._heard.append(notice.payload))
                    self._watch(connection)
            except Exception as error:  # noqa: BLE001 - without this thread, whoever waits is never woken
                logger.warning("The streams listener begins anew: %s", type(error).__name__)
                self._rest(None, _RETRY_SECONDS)

    def _watch(self, connection: Connection) -> None:
        hears = not self._database.pooled and self._hears(connection)
        self._polls = not hears
        self._look(connection)  # what was committed before it listened
        while not self._stopped:
            if hears:
                self._listen(connection)
            else:
                self._rest(None, _POLL_SECONDS if self._waiters else None)
                self._look(connection)

    def _listen(self, connection: Connection) -> None:
        if not self._heard:  # a query takes in what arrives while it runs, and the socket stays silent
            self._rest(connection, max(0.0, self._looked + _HEARTBEAT_SECONDS - time.monotonic()))
            self._take_in(connection)
        if not self._tell() or time.monotonic() >= self._looked + _HEARTBEAT_SECONDS:
            connection.execute("SELECT 1")  # or a connection that has silently gone would never be missed
            self._look(connection)

    def _take_in(self, connection: Connection) -> None:
        """Hear what has arrived. Raises ``psycopg.OperationalError`` when the connection is lost."""
        connection.pgconn.consume_input()
        while (notice := connection.pgconn.notifies()) is not None:
            self._heard.append(notice.extra.decode())

    def _tell(self) -> bool:
        """Wake for what was heard; whether that was all there is to know."""
        complete = True
        while self._heard:
            moved = _moved(self._heard.popleft())
            complete &= moved is not None
            for path, tail in moved or ():
                self._waiters.wake(path, tail)
        return complete

    def _hears(self, connection: Connection) -> bool:
        """Whether this connection gets what another one sends."""
        found = connection.execute(f"SELECT {CHANNEL}").fetchone()
        assert found is not None
        connection.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(found[0])))
        with self._database.connect("probe") as other:
            other.execute("SELECT pg_notify(%s, '')", found)
        end = time.monotonic() + _PROOF_SECONDS
        while not self._stopped and (left := end - time.monotonic()) > 0:
            self._rest(connection, left)
            self._take_in(connection)
            if self._heard:
                return True
        return False

    def _look(self, connection: Connection) -> None:
        self._looked = time.monotonic()
        paths = self._waiters.paths()
        if not paths:
            return
        with self._database.reading(connection):
            tails = tables.tails(connection, paths)
        for path, tail in tails.items():
            self._waiters.wake(path, tail)

    def _rest(self, connection: Connection | None, timeout: float | None) -> None:
        """Wait for notices, the bell or the time."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._bell, selectors.EVENT_READ)
            if connection is not None:
                selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.select(timeout)
        with suppress(BlockingIOError):
            self._bell.recv(4096)

    def _ring(self) -> None:
        with suppress(OSError):  # full: it rings already
            self._button.send(b"!")


def _moved(payload: str) -> list[tuple[str, int | None]] | None:
    """Who moved where, as a notice says; ``None`` when it does not: anybody may send one on the channel."""
    with suppress(ValueError, TypeError):
        moved = [(path, tail) for path, tail in orjson.loads(payload)]
        if all(isinstance(path, str) and isinstance(tail, int | None) for path, tail in moved):
            return moved
    return None
