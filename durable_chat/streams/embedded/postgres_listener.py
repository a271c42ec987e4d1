"""How a process hears of what the others commit: LISTEN on one connection, or polling without it."""

import logging
import selectors
import socket
import threading
import time
from contextlib import suppress
from typing import Final

import orjson
import psycopg

from durable_chat.streams.embedded import postgres_tables as tables
from durable_chat.streams.embedded.postgres_connection import Connection, Database
from durable_chat.streams.embedded.postgres_drain import CHANNEL
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
                with self._database.connect("listener", autocommit=True) as connection:
                    self._watch(connection)
            except (psycopg.Error, OSError) as error:
                logger.warning("The streams listener lost its connection: %s", type(error).__name__)
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
        rung = self._rest(connection, _HEARTBEAT_SECONDS)
        notices = _notices(connection)
        if not notices and not rung:
            connection.execute("SELECT 1")  # or a connection that has silently gone would never be missed
            self._look(connection)
        for payload in notices:
            if not payload:
                self._look(connection)
                return
            for path, tail in orjson.loads(payload):
                self._waiters.wake(path, tail)

    def _hears(self, connection: Connection) -> bool:
        """Whether this connection gets what another one sends."""
        found = connection.execute(f"SELECT {CHANNEL}").fetchone()
        assert found is not None
        connection.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(found[0])))
        with self._database.connect("probe", autocommit=True) as other:
            other.execute("SELECT pg_notify(%s, '')", found)
        end = time.monotonic() + _PROOF_SECONDS
        while not self._stopped and (left := end - time.monotonic()) > 0:
            self._rest(connection, left)
            if _notices(connection):
                return True
        return False

    def _look(self, connection: Connection) -> None:
        paths = self._waiters.paths()
        if not paths:
            return
        for path, tail in tables.tails(connection, paths).items():
            self._waiters.wake(path, tail)

    def _rest(self, connection: Connection | None, timeout: float | None) -> bool:
        """Wait for notices, the bell or the time; whether the bell rang."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._bell, selectors.EVENT_READ)
            if connection is not None:
                selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.select(timeout)
        with suppress(BlockingIOError):
            return bool(self._bell.recv(4096))
        return False

    def _ring(self) -> None:
        with suppress(OSError):  # full: it rings already
            self._button.send(b"!")


def _notices(connection: Connection) -> list[str]:
    """The payloads that have arrived. Raises ``psycopg.OperationalError`` when the connection is lost."""
    connection.pgconn.consume_input()
    payloads: list[str] = []
    while (notice := connection.pgconn.notifies()) is not None:
        payloads.append(notice.extra.decode())
    return payloads
