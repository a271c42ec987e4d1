"""The connections that the PostgreSQL store opens for itself, and what becomes of their errors."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import IsolationLevel, Pipeline, errors

from durable_chat.streams.protocol.errors import BadRequest, Unavailable

logger = logging.getLogger(__name__)

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

# A dead network is noticed in seconds, not in the kernel's hours. What the site says of these goes before.
_DEFAULTS: Final[Mapping[str, Any]] = {
    "application_name": "durable_streams",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

# What was acknowledged is committed, whatever the site chose for itself; a row that was waited for is seen as
# it is then; and nobody, not even a process that was stopped in the middle, holds a stream's lock for long.
_SETTINGS: Final = """
SELECT set_config('statement_timeout', '30s', %(local)s),
       set_config('lock_timeout', %(lock)s, %(local)s),
       set_config('idle_in_transaction_session_timeout', '5s', %(local)s),
       set_config('synchronous_commit',
                  replace(current_setting('synchronous_commit'), 'off', 'on'), %(local)s),
       set_config('default_transaction_isolation', 'read committed', %(local)s),
       set_config('role', coalesce(%(role)s, current_setting('role')), %(local)s)
"""

_NO_TABLES: Final = "The streams have no tables yet: run `manage.py migrate`."

# Not the database's fault but the value's: it has no place in a column or in an index.
_UNSTORABLE: Final = (errors.DataError, errors.ProgramLimitExceeded, UnicodeEncodeError)


@dataclass(frozen=True, slots=True)
class Database:
    """Where the streams are. ``parameters`` gives psycopg's and perhaps Django's ``assume_role``.
    It is asked anew for every connection.

    ``pooled``: behind a pooler that lends a connection for one transaction at a time. Then nothing is kept in
    a session: no prepared statements, no LISTEN, and each transaction is told its settings.
    """

    parameters: Callable[[], Mapping[str, Any]] = field(repr=False)
    pooled: bool = False
    busy_seconds: float = 5.0

    def connect(self, role: str) -> Connection:
        """A new connection, which commits each statement by itself until told to begin.

        Raises ``psycopg.Error``.
        """
        parameters = {**_DEFAULTS, **self.parameters()}
        parameters["application_name"] += f" {role}"
        parameters.pop("assume_role", None)
        connection = psycopg.connect(**parameters, autocommit=True)
        try:
            connection.prepare_threshold = None if self.pooled else 3
            if not self.pooled:
                self._settle(connection, local=False)
            connection.isolation_level = IsolationLevel.REPEATABLE_READ  # of a ``snapshot``
        except BaseException:
            connection.close()
            raise
        return connection

    def begin(self, connection: Connection) -> None:
        """To be called first in each transaction that writes; ``COMMIT`` ends it.

        In psycopg's own words each of the two would wait for an answer by itself, pipeline or not.
        """
        connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        if self.pooled:
            self._settle(connection, local=True)

    @contextmanager
    def reading(self, connection: Connection) -> Iterator[None]:
        """Around each piece of work on a connection that commits by itself."""
        if not self.pooled:
            yield
            return
        with pipelined(connection), connection.transaction():
            self._settle(connection, local=True)
            yield

    def at_once(self, connection: Connection, statement: str, given: Sequence[Any]) -> tuple[Any, ...] | None:
        """A statement that is a transaction by itself, in one round trip; the row that it gives, if any."""
        if not self.pooled:
            return connection.execute(statement, given, binary=True).fetchone()
        with pipelined(connection):
            self.begin(connection)
            found = connection.execute(statement, given, binary=True)
            connection.execute("COMMIT")
        return found.fetchone()

    def _settle(self, connection: Connection, *, local: bool) -> None:
        settings = {
            "local": local,
            "lock": f"{self.busy_seconds:g}s",
            "role": self.parameters().get("assume_role"),
        }
        connection.execute(_SETTINGS, settings)


@contextmanager
def pipelined(connection: Connection) -> Iterator[None]:
    """Statements that go out together and are answered together, where libpq can."""
    if not Pipeline.is_supported():
        yield
        return
    with connection.pipeline():
        yield


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """Several statements that see one state of the database, on a connection that reads."""
    with connection.transaction():
        yield


def is_open(connection: Connection) -> bool:
    """Whether the server has not ended an idle connection, as far as has been heard. Asks nobody."""
    with suppress(psycopg.OperationalError):
        for _ in range(2):  # its last words, and that there are no more
            connection.pgconn.consume_input()
    return not connection.closed


def told(error: Exception) -> Exception:
    """What a caller is told of an error. Those of the database are logged: by their code, without content."""
    if isinstance(error, _UNSTORABLE):
        return BadRequest("PostgreSQL cannot hold that name or value.")
    if isinstance(error, psycopg.Error):
        logger.warning("The streams database failed: %s", error.sqlstate or type(error).__name__)
        return Unavailable(_NO_TABLES if isinstance(error, errors.UndefinedTable) else "")
    return error


def spoils_all(error: Exception) -> bool:
    """Whether it was the database that failed, so that every other statement would fail as well."""
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | errors.UndefinedTable) and (
        not isinstance(error, _UNSTORABLE)
    )
