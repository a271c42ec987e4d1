"""A disk that is full, locked or read-only: 503 with Retry-After, then on as if nothing had been."""

import asyncio
import os
import resource
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from durable_chat.streams.protocol.exchange import Request, Response
from durable_chat.streams.server import StreamServer
from durable_chat.streams.stores.file import File
from durable_chat.streams.stores.sqlite import SQLiteStore

BINARY = {"content-type": "application/octet-stream"}
PIECE = os.urandom(64 * 1024)
NOBODY = 65534


@pytest.fixture
def directory() -> Iterator[Path]:
    """One whose parents anybody may enter, unlike pytest's own."""
    with TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
async def server(directory: Path) -> AsyncIterator[StreamServer]:
    store = SQLiteStore(directory / "streams.sqlite3", busy_seconds=0.05)
    server = StreamServer(store)
    assert (await server.handle(Request("PUT", "s", {}, BINARY))).status == 201
    yield server
    await store.aclose()


async def append(server: StreamServer, seq: int, data: bytes = PIECE) -> Response:
    stamp = {"producer-id": "p", "producer-epoch": "0", "producer-seq": str(seq)}
    return await server.handle(Request("POST", "s", {}, {**BINARY, **stamp}, data))


async def read(server: StreamServer) -> bytes:
    """The whole stream, page after page."""
    content, offset, more = b"", "-1", True
    while more:
        response = await server.handle(Request("GET", "s", {"offset": offset}))
        assert response.status == 200
        content += await response.read()
        offset, more = response.headers["stream-next-offset"], "stream-up-to-date" not in response.headers
    return content


def refused(response: Response) -> bool:
    return response.status == 503 and float(response.headers["retry-after"]) > 0


async def filled(server: StreamServer) -> int:
    """Append until there is no room; how many pieces there was room for."""
    taken = refusals = 0
    while refusals < 5:  # SQLite may find some more where a checkpoint has made it
        response = await append(server, taken)
        refusals = refusals + 1 if refused(response) else 0
        taken += response.status == 200
        assert taken < 1000, "There was room for everything."
    return taken


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """The kernel refuses what would make a file of this process larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def unprivileged() -> Iterator[None]:
    """As somebody whom the permissions of files bind, which they do not bind root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def permit(directory: Path, directory_mode: int, file: Path, file_mode: int) -> None:
    directory.chmod(directory_mode)
    file.chmod(file_mode)


async def test_when_the_kernel_refuses_to_write(server: StreamServer) -> None:
    with no_file_beyond(2 * 1024 * 1024):
        taken = await filled(server)
        assert taken > 0
        assert await read(server) == PIECE * taken  # which readers do not notice
    assert (await append(server, taken)).status == 200
    assert (await append(server, taken)).status == 204  # the same again
    assert await read(server) == PIECE * (taken + 1)


async def test_when_the_disk_is_full(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLITE_FULL, which SQLite makes of ENOSPC and of a limit on its pages alike."""
    limit = 500
    connect = File.connect

    def limited(file: File) -> sqlite3.Connection:
        connection = connect(file)
        connection.execute(f"PRAGMA max_page_count={limit}")
        return connection

    monkeypatch.setattr(File, "connect", limited)
    store = SQLiteStore(directory / "streams.sqlite3")
    server = StreamServer(store)
    await server.handle(Request("PUT", "s", {}, BINARY))
    taken = await filled(server)
    assert taken > 0
    assert refused(await server.handle(Request("PUT", "other", {}, BINARY, PIECE)))
    answers = await asyncio.gather(*(append(server, taken) for _ in range(10)))
    assert all(refused(answer) for answer in answers)
    assert await read(server) == PIECE * taken
    limit = 5000
    assert (await append(server, taken)).status == 200
    assert await read(server) == PIECE * (taken + 1)
    await store.aclose()


async def test_when_another_process_holds_the_lock(server: StreamServer, directory: Path) -> None:
    with closing(sqlite3.connect(directory / "streams.sqlite3", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        answers = await asyncio.gather(*(append(server, 0) for _ in range(10)))
        assert all(refused(answer) for answer in answers)
        assert refused(await server.handle(Request("DELETE", "s")))
        assert await read(server) == b""
        holder.execute("ROLLBACK")
    answers = await asyncio.gather(*(append(server, 0) for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [200] + [204] * 9
    assert await read(server) == PIECE


async def test_when_the_file_may_not_be_written(directory: Path) -> None:
    path = directory / "streams.sqlite3"
    first = SQLiteStore(path)
    await StreamServer(first).handle(Request("PUT", "s", {}, BINARY, b"kept"))
    await first.aclose()
    permit(directory, 0o555, path, 0o444)
    store = SQLiteStore(path)
    server = StreamServer(store)
    with unprivileged():
        assert refused(await append(server, 0))
        assert refused(await append(server, 0))
    permit(directory, 0o755, path, 0o644)
    assert (await append(server, 0, b" and more")).status == 200
    assert await read(server) == b"kept and more"
    await store.aclose()
