"""The threads behind the PostgreSQL store: one commits what is queued in one transaction, a few read."""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, Generic, TypeAlias, TypeVar, cast

import psycopg
from psycopg import errors

from durable_chat.streams.embedded.postgres_commit import at_once, commit
from durable_chat.streams.embedded.postgres_connection import (
    Connection,
    Database,
    is_open,
    spoils_all,
    told,
)
from durable_chat.streams.embedded.postgres_drain import PostgresDrain, Unforeseen
from durable_chat.streams.embedded.postgres_memory import Memory
from durable_chat.streams.protocol.errors import Unavailable
from durable_chat.streams.stores.drain import Drain, Write, decide
from durable_chat.streams.stores.jobs import Inbox, Job, Outcome, settle
from durable_chat.streams.stores.threaded import SWEPT_AT_ONCE
from durable_chat.streams.stores.waiters import Waiters

logger = logging.getLogger(__name__)

S = TypeVar("S")

_Done: TypeAlias = tuple[list[Outcome], dict[str, int | None]]
"""How the jobs ended, and where the streams moved."""

_COMMITTED_AT_ONCE: Final = 256  # appends in one transaction
_BYTES_AT_ONCE: Final = 64 * 1024 * 1024  # a statement of 1 GiB ends the connection
_READ_AT_ONCE: Final = 4
_ATTEMPTS: Final = 5
_SWEEP_SECONDS: Final = 60.0

# Another process was quicker: it created the same stream, or holds what this one needs. Nothing is written.
_COLLISIONS: Final = (errors.UniqueViolation, errors.DeadlockDetected, errors.SerializationFailure)


class _Worker(threading.Thread, ABC, Generic[S]):
    """A thread with a connection of its own, opened when it is first needed and again after it has failed.

    A daemon, so that a process which forgot to close its store still ends: what it acknowledged is committed.
    """

    def __init__(self, name: str, database: Database, inbox: Inbox[S]) -> None:
        super().__init__(name=f"durable-streams-{name}", daemon=True)
        self._role = name
        self._database = database
        self._inbox = inbox
        self._connection: Connection | None = None

    def run(self) -> None:
        while self._turn():
            pass
        self._drop()

    @abstractmethod
    def _turn(self) -> bool:
        """Wait for work and do it; whether there is to be another turn."""

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.connect(self._role)
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
        self._connection = None

    def _lost(self) -> bool:
        """Whether the connection had died, perhaps long ago, and asking again on a new one may help."""
        lost = self._connection is not None and self._connection.closed
        if lost:
            self._drop()
        return lost


class Reader(_Worker[Connection]):
    """Reads, each one statement, and so in a snapshot of its own."""

    def _turn(self) -> bool:
        jobs, go_on = self._inbox.take(timeout=None, at_most=_READ_AT_ONCE)
        settle([self._attempt(job, again=True) for job in jobs])
        return go_on

    def _attempt(self, job: Job[Connection], *, again: bool) -> Outcome:
        try:
            connection = self._open()
            with self._database.reading(connection):
                return Outcome(job, job.work(connection))
        except Exception as error:  # noqa: BLE001 - handed to the caller
            if self._lost() and again:
                return self._attempt(job, again=False)
            return Outcome(job, error=told(error))


class Writer(_Worker[Drain]):
    """Commits all that is queued at once, then wakes whoever waits for it in this process.

    Between commits, ``sweep`` erases what has expired.
    """

    def __init__(
        self,
        database: Database,
        inbox: Inbox[Drain],
        waiters: Waiters,
        *,
        sweep: Callable[[Drain], int],
    ) -> None:
        super().__init__("writer", database, inbox)
        self._waiters = waiters
        self._sweep: Job[Drain] = Job(Write(sweep))
        self._next_sweep = time.monotonic() + _SWEEP_SECONDS
        self._memory = Memory()
        self._committing = False  # then a connection that is lost may have committed, and who knows

    def _turn(self) -> bool:
        patience = max(0.0, self._next_sweep - time.monotonic())
        jobs, go_on = self._inbox.take(timeout=patience, at_most=_COMMITTED_AT_ONCE)
        for portion in _portions(jobs):
            settle(self._commit(portion, attempts=_ATTEMPTS))
        if go_on and time.monotonic() >= self._next_sweep:
            self._sweep_some()
        return go_on

    def _sweep_some(self) -> None:
        (outcome,) = self._commit([self._sweep], attempts=_ATTEMPTS)
        if outcome.error is not None:
            logger.warning("Expired streams were not erased: %s", type(outcome.error).__name__)
        if outcome.result != SWEPT_AT_ONCE:  # or there is more
            self._next_sweep = time.monotonic() + _SWEEP_SECONDS

    def _commit(
        self, jobs: list[Job[Drain]], *, attempts: int, more: frozenset[str] = frozenset()
    ) -> list[Outcome]:
        self._committing = False
        try:
            done = None if more else self._by_memory(jobs)
            if done is None:
                done = self._by_looking_up(jobs, more)
        except Unforeseen as unforeseen:
            self._roll_back()
            return self._commit(jobs, attempts=attempts, more=more.union(unforeseen.paths))
        except Exception as error:  # noqa: BLE001 - handed to the callers
            return self._recover(jobs, error, attempts=attempts - 1)
        outcomes, moved = done
        for path, tail in moved.items():
            self._waiters.wake(path, tail)
        return outcomes

    def _by_memory(self, jobs: list[Job[Drain]]) -> _Done | None:
        """In one round trip, if the rows are known and still as they are known."""
        drain = PostgresDrain(self._database, self._open())
        if not drain.recall(_writes(jobs), self._memory) or not is_open(drain.connection):
            return None
        outcomes = [decide(job, drain) for job in jobs]
        self._committing = True
        version = at_once(drain)
        if version is None:
            self._committing = False
            return None
        drain.impart(self._memory, version)
        return outcomes, drain.moved

    def _by_looking_up(self, jobs: list[Job[Drain]], more: frozenset[str]) -> _Done:
        """In two round trips: the first locks the rows and tells what they are."""
        drain = PostgresDrain(self._database, self._open())
        drain.look_up(_writes(jobs), more=more)
        outcomes = [decide(job, drain) for job in jobs]
        self._committing = True
        drain.impart(self._memory, commit(drain))
        return outcomes, drain.moved

    def _drop(self) -> None:
        super()._drop()
        self._memory.clear()

    def _recover(self, jobs: list[Job[Drain]], error: Exception, *, attempts: int) -> list[Outcome]:
        self._roll_back()
        lost = self._lost()
        if attempts and (isinstance(error, _COLLISIONS) or (lost and not self._committing)):
            return self._commit(jobs, attempts=attempts)
        if (
            len(jobs) > 1
            and not lost
            and (isinstance(error, errors.LockNotAvailable) or not spoils_all(error))
        ):
            return list(self._commit_singly(jobs))
        answer = told(error)
        return [Outcome(job, error=answer) for job in jobs]

    def _commit_singly(self, jobs: list[Job[Drain]]) -> Iterator[Outcome]:
        """Nothing of it is written: let the one fail by itself, and the others pass."""
        held: set[str] = set()  # nor is a lock waited for twice
        for job in jobs:
            paths = cast(Write, job.work).paths
            if not held.isdisjoint(paths):
                yield Outcome(job, error=Unavailable())
                continue
            (outcome,) = self._commit([job], attempts=_ATTEMPTS)
            if isinstance(outcome.error, Unavailable):
                held.update(paths)
            yield outcome

    def _roll_back(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.rollback()


def _writes(jobs: list[Job[Drain]]) -> list[Write]:
    return [cast(Write, job.work) for job in jobs]


def _portions(jobs: list[Job[Drain]]) -> Iterator[list[Job[Drain]]]:
    """Jobs, in order, as lists for one transaction each, which adds about as many bytes as it should."""
    portion: list[Job[Drain]] = []
    size = 0
    for job in jobs:
        write = cast(Write, job.work)
        if portion and (write.reads or size + write.size > _BYTES_AT_ONCE):
            yield portion
            portion, size = [], 0
        portion.append(job)
        size += write.size
    if portion:
        yield portion
