"""The threads behind the SQLite store: one commits what is queued in one transaction, a few read."""

import logging
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Generic, TypeVar

from durable_chat.streams.protocol.errors import Unavailable
from durable_chat.streams.stores import tables
from durable_chat.streams.stores.drain import Drain, Write, decide
from durable_chat.streams.stores.file import File
from durable_chat.streams.stores.jobs import Inbox, Job, Outcome, settle
from durable_chat.streams.stores.recent import Glance, Windows
from durable_chat.streams.stores.sqlite_drain import SQLiteDrain
from durable_chat.streams.stores.threaded import SWEPT_AT_ONCE
from durable_chat.streams.stores.waiters import Waiters

logger = logging.getLogger(__name__)

S = TypeVar("S")

_COMMITTED_AT_ONCE: Final = 256  # appends in one transaction
_READ_AT_ONCE: Final = 8
_POLL_SECONDS: Final = 0.01
_PURGE_SECONDS: Final = 1.0
_SWEEP_SECONDS: Final = 60.0


class _Broken(Exception):
    """A job failed in a way that may have left the transaction half done."""


class _Worker(threading.Thread, ABC, Generic[S]):
    """A thread with a connection of its own, opened when it is first needed and again after it has failed.

    A daemon, so that a process which forgot to close its store still ends: what it acknowledged is committed.
    """

    def __init__(self, name: str, file: File, inbox: Inbox[S], *, glance: Glance) -> None:
        super().__init__(name=f"durable-streams-{name}", daemon=True)
        self._file = file
        self._inbox = inbox
        self._glance = glance
        self._connection: sqlite3.Connection | None = None

    def run(self) -> None:
        while self._turn():
            pass
        self._drop()

    @abstractmethod
    def _turn(self) -> bool:
        """Wait for work and do it; whether there is to be another turn."""

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._file.connect()
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _failed(self, jobs: list[Job[S]], error: BaseException | None) -> list[Outcome]:
        """What the callers are told. A database that fails is opened afresh: it may be another by then."""
        if not isinstance(error, sqlite3.Error):
            return [Outcome(job, error=error) for job in jobs]
        self._drop()
        self._glance.close()
        logger.warning("The streams database failed: %s", getattr(error, "sqlite_errorname", "unknown"))
        return [Outcome(job, error=Unavailable()) for job in jobs]


class Reader(_Worker[sqlite3.Connection]):
    """Reads, each in a snapshot of its own."""

    def _turn(self) -> bool:
        jobs, go_on = self._inbox.take(timeout=None, at_most=_READ_AT_ONCE)
        settle([outcome for job in jobs for outcome in self._attempt(job)])
        return go_on

    def _attempt(self, job: Job[sqlite3.Connection]) -> list[Outcome]:
        try:
            with _snapshot(self._open()) as connection:
                return [Outcome(job, job.work(connection))]
        except Exception as error:  # noqa: BLE001 - handed to the caller
            return self._failed([job], error)


class Writer(_Worker[Drain]):
    """Commits all that is queued at once, then wakes whoever waits for it.

    Other processes' commits wake the waiters too: this connection is asked for them every few milliseconds,
    for as long as somebody waits. Between commits, ``sweep`` erases what has expired.
    """

    def __init__(
        self,
        file: File,
        inbox: Inbox[Drain],
        waiters: Waiters,
        *,
        windows: Windows,
        glance: Glance,
        sweep: Callable[[Drain], int],
    ) -> None:
        super().__init__("writer", file, inbox, glance=glance)
        self._waiters = waiters
        self._windows = windows
        self._sweep: Job[Drain] = Job(Write(sweep))
        self._next_sweep = time.monotonic() + _SWEEP_SECONDS
        self._seen: int | None = None  # data_version: changes with every commit of another connection
        self._looked = 0.0
        self._drain = SQLiteDrain()
        self.watches = False

    def _turn(self) -> bool:
        jobs, go_on = self._inbox.take(timeout=self._patience(), at_most=_COMMITTED_AT_ONCE)
        outcomes = self._commit(jobs) if jobs else []
        if self._drain.purge:
            self._purge()
        settle(outcomes)
        if go_on and time.monotonic() >= self._next_sweep:
            self._sweep_some()
        if self.watches and time.monotonic() >= self._looked + _POLL_SECONDS:
            self._look_for_others()
        return go_on

    def _patience(self) -> float | None:
        # First False, then the truth: whoever begins to wait in between finds False, and nudges.
        self.watches = False
        self.watches = bool(self._waiters)
        if self.watches:
            return _POLL_SECONDS
        until_sweep = max(0.0, self._next_sweep - time.monotonic())
        return min(_PURGE_SECONDS, until_sweep) if self._drain.purge else until_sweep

    def _commit(self, jobs: list[Job[Drain]]) -> list[Outcome]:
        drain = self._drain
        try:
            drain.begin(self._open())
            outcomes = _attempt(jobs, drain)
            drain.commit()
        except _Broken as broken:
            drain.roll_back()
            if len(jobs) > 1:  # nothing of it is written: let the one fail by itself, and the others pass
                return [outcome for job in jobs for outcome in self._commit([job])]
            return self._failed(jobs, broken.__cause__)
        except Exception as error:  # noqa: BLE001 - handed to the callers
            drain.roll_back()
            return self._failed(jobs, error)
        moved, written = drain.take()
        self._windows.note(written)
        for path, tail in moved.items():
            self._waiters.wake(path, tail)
        return outcomes

    def _look_for_others(self) -> None:
        self._looked = time.monotonic()
        with suppress(sqlite3.Error, Unavailable):  # whoever asks for something is told
            connection = self._open()
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            if version == self._seen:
                return
            for path in self._waiters.paths():
                row = tables.find(connection, path)
                if row is None or row.stream.closed or row.stream.deleted:
                    self._waiters.wake(path, None)
                else:
                    self._waiters.wake(path, row.stream.tail)
            self._seen = version

    def _drop(self) -> None:
        super()._drop()
        self._seen = None  # each connection counts for itself

    def _sweep_some(self) -> None:
        (outcome,) = self._commit([self._sweep])
        if outcome.error is not None:
            logger.warning("Expired streams were not erased: %s", type(outcome.error).__name__)
        if outcome.result != SWEPT_AT_ONCE:  # or there is more, for the next turn
            self._next_sweep = time.monotonic() + _SWEEP_SECONDS

    def _purge(self) -> None:
        """Take what was erased out of the write-ahead log too, as soon as no reader needs it any more."""
        try:
            connection = self._open()
            connection.execute("PRAGMA busy_timeout=0")
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            connection.execute(f"PRAGMA busy_timeout={int(self._file.busy_seconds * 1000)}")
            self._drain.purge = bool(busy)
        except (sqlite3.Error, Unavailable):
            self._drop()


def _attempt(jobs: list[Job[Drain]], drain: SQLiteDrain) -> list[Outcome]:
    """Decide about each and write what was decided. Raises ``_Broken`` if either fails."""
    try:
        outcomes = [decide(job, drain) for job in jobs]
        drain.flush()
    except Exception as error:
        raise _Broken from error
    return outcomes


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    connection.execute("BEGIN")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
