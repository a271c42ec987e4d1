"""The embedded server: its settings, and the one server that a process has."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db.utils import ConnectionHandler
from django.test import modify_settings, override_settings

from durable_chat.streams.embedded import conf, process
from durable_chat.streams.embedded.conf import StreamsConf, parse
from durable_chat.streams.protocol.exchange import Request
from durable_chat.streams.server import Access
from durable_chat.streams.stores.memory import MemoryStore
from durable_chat.streams.stores.sqlite import SQLiteStore
from tests.streams.test_door import Visit

TEXT = {"content-type": "text/plain"}
APP = "durable_chat.streams.embedded"


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    process.close()
    yield
    process.close()


@pytest.fixture
def default_database(monkeypatch: pytest.MonkeyPatch) -> Any:
    def be(**database: Any) -> None:
        database = {"ENGINE": "django.db.backends.sqlite3", **database}
        monkeypatch.setattr(conf, "connections", ConnectionHandler({"default": database}))

    return be


class TestSettings:
    def test_everything_may_be_said(self, tmp_path: Path) -> None:
        path = tmp_path / "s.sqlite3"
        assert parse(
            {
                "STORE": "sqlite",
                "SQLITE_PATH": str(path),
                "SYNCHRONOUS": "NORMAL",
                "WRITE_TOKEN": "w",
                "READ_TOKEN": "r",
                "ANONYMOUS": True,
                "MAX_BODY": 10,
                "SSE_SECONDS": 30,
                "LONG_POLL_SECONDS": 1.5,
                "RECENT_BYTES": 0,
            }
        ) == StreamsConf(path, "NORMAL", Access("w", "r", anonymous=True), 10, 30, 1.5, recent_bytes=0)

    def test_nothing_needs_to_be(self, default_database: Any, tmp_path: Path) -> None:
        default_database(NAME=tmp_path / "db.sqlite3")
        assert parse({}) == StreamsConf(tmp_path / "db.streams.sqlite3")
        assert parse({}).access == Access()

    @pytest.mark.parametrize(
        ("name", "beside"),
        [("db.sqlite3", "db.streams.sqlite3"), ("site.db", "site.streams.db"), ("data", "data.streams")],
    )
    def test_a_file_of_its_own(self, default_database: Any, name: str, beside: str) -> None:
        default_database(NAME=f"/srv/{name}")
        assert parse({"STORE": "sqlite"}).sqlite_path == Path("/srv") / beside

    @pytest.mark.parametrize("name", [":memory:", "file:memorydb_default?mode=memory&cache=shared"])
    def test_memory_beside_memory(self, default_database: Any, name: str) -> None:
        default_database(NAME=name)
        assert parse({}).sqlite_path is None
        with pytest.raises(ImproperlyConfigured, match="SQLITE_PATH"):
            parse({"STORE": "sqlite"})

    def test_another_database_needs_a_decision(self, default_database: Any) -> None:
        default_database(ENGINE="django.db.backends.dummy", NAME="x")
        for store in ("auto", "sqlite"):
            with pytest.raises(ImproperlyConfigured, match=r"SQLITE_PATH.* to a file"):
                parse({"STORE": store})
        assert parse({"STORE": "memory"}).sqlite_path is None
        assert parse({"SQLITE_PATH": "/srv/s"}).sqlite_path == Path("/srv/s")

    def test_in_postgres_where_that_is_the_default(
        self, default_database: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        default_database(ENGINE="django.db.backends.postgresql", NAME="site")
        with modify_settings(INSTALLED_APPS={"append": APP}):
            assert parse({}) == parse({"STORE": "postgres"}) == StreamsConf(postgres=True)
            assert parse({"SQLITE_PATH": "/srv/s"}) == StreamsConf(Path("/srv/s"))
            assert parse({"STORE": "memory"}) == StreamsConf()
            monkeypatch.setattr(conf, "find_spec", lambda name: None)
            with pytest.raises(ImproperlyConfigured, match=r"durable-chat\[postgres\].*SQLITE_PATH"):
                parse({})
        for store in ("auto", "postgres"):
            with (
                modify_settings(INSTALLED_APPS={"remove": APP}),
                pytest.raises(ImproperlyConfigured, match=r"INSTALLED_APPS.* migrate.*SQLITE_PATH"),
            ):
                parse({"STORE": store})

    def test_in_postgres_only_where_it_is(self, default_database: Any, tmp_path: Path) -> None:
        default_database(NAME=tmp_path / "db.sqlite3")
        with pytest.raises(ImproperlyConfigured, match="not PostgreSQL"):
            parse({"STORE": "postgres"})

    def test_postgres_is_reached_as_django_reaches_it(self, default_database: Any) -> None:
        default_database(
            ENGINE="django.db.backends.postgresql",
            NAME="site",
            USER="me",
            PASSWORD="s3cret",
            HOST="db",
            OPTIONS={"sslmode": "require", "pool": True, "isolation_level": 1, "assume_role": "app"},
            DISABLE_SERVER_SIDE_CURSORS=True,
        )
        assert conf.connection_parameters() == {
            "dbname": "site",
            "user": "me",
            "password": "s3cret",
            "host": "db",
            "sslmode": "require",
            "client_encoding": "UTF8",
            "assume_role": "app",
        }
        assert conf.is_pooled()

    @pytest.mark.parametrize(
        ("key", "named"),
        [
            ("WRITE_TOKENS", "did you mean WRITE_TOKEN?"),
            ("sqlite_path", "did you mean SQLITE_PATH?"),
            ("X", "STORE"),
        ],
    )
    def test_an_unknown_key_is_an_error_that_names_the_right_one(self, key: str, named: str) -> None:
        with pytest.raises(ImproperlyConfigured) as error:
            parse({key: "s3cret"})
        assert named in str(error.value)
        assert "s3cret" not in str(error.value)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"STORE": "redis"},
            {"SQLITE_PATH": 1},
            {"SYNCHRONOUS": "OFF"},
            {"WRITE_TOKEN": b"s3cret"},
            {"WRITE_TOKEN": "s3cret\n"},
            {"READ_TOKEN": None},
            {"ANONYMOUS": "yes"},
            {"MAX_BODY": 0},
            {"MAX_BODY": True},
            {"SSE_SECONDS": "60"},
            {"SSE_SECONDS": float("nan")},
            {"SSE_SECONDS": float("inf")},
            {"MAX_BODY": float("inf")},
            {"RECENT_BYTES": float("inf")},
            {"RECENT_BYTES": -1},
            {"LONG_POLL_SECONDS": 10**400},
            {"LONG_POLL_SECONDS": -1},
        ],
    )
    def test_a_wrong_value_is_named_but_not_shown(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ImproperlyConfigured, match=next(iter(wrong))) as error:
            parse(
                {"STORE": "memory", **wrong} if "STORE" not in wrong and "SQLITE_PATH" not in wrong else wrong
            )
        assert "s3cret" not in str(error.value)

    def test_tokens_are_not_shown(self) -> None:
        assert "s3cret" not in repr(
            parse({"STORE": "memory", "WRITE_TOKEN": "s3cret", "READ_TOKEN": "s3cret"})
        )


class TestProcess:
    def test_has_one_server_whoever_asks(self) -> None:
        found: list[object] = []
        with override_settings(DURABLE_STREAMS={"STORE": "memory"}):
            threads = [threading.Thread(target=lambda: found.append(process.server())) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert set(map(id, found)) == {id(process.server())}

    def test_builds_another_when_settings_change(self, tmp_path: Path) -> None:
        with override_settings(DURABLE_STREAMS={"STORE": "memory", "SSE_SECONDS": 7}):
            first = process.server()
            assert isinstance(first.store, MemoryStore)
            assert first.options.sse_seconds == 7
            path = tmp_path / "s.sqlite3"
            with override_settings(DURABLE_STREAMS={"STORE": "sqlite", "SQLITE_PATH": path}):
                second = process.server()
                assert isinstance(second.store, SQLiteStore)
                assert asyncio.run(process.handle(Request("PUT", "a", {}, TEXT, b"abc"))).status == 201
                assert path.exists()
            assert process.server() is not first
        assert asyncio.run(second.handle(Request("GET", "a"))).status == 503  # closed with its settings

    def test_keeps_its_streams_when_it_is_closed(self, tmp_path: Path) -> None:
        path = tmp_path / "s.sqlite3"
        with override_settings(DURABLE_STREAMS={"SQLITE_PATH": path}):
            asyncio.run(process.handle(Request("PUT", "a", {}, TEXT, b"abc")))
            process.close()
            assert asyncio.run(process.handle(Request("GET", "a"))).body == b"abc"
            process.close()
        with sqlite3.connect(path) as connection:
            assert connection.execute("SELECT path FROM stream").fetchall() == [("a",)]
        connection.close()

    def test_wrong_settings_are_told_to_whoever_asks(self) -> None:
        with override_settings(DURABLE_STREAMS={"STOER": "memory"}), pytest.raises(ImproperlyConfigured):
            process.server()

    async def test_serves_those_with_a_token(self) -> None:
        with override_settings(
            DURABLE_STREAMS={"STORE": "memory", "WRITE_TOKEN": "w", "READ_TOKEN": "r", "MAX_BODY": 3}
        ):
            for method, token, status in (
                ("PUT", "x", 401),
                ("PUT", "r", 403),
                ("PUT", "w", 201),
                ("GET", "r", 200),
            ):
                visit = Visit(method, "/v1/stream/a", headers={"authorization": f"Bearer {token}"})
                await process.application(visit.scope, visit.receive, visit.send)
                assert visit.status == status
            visit = Visit("PUT", "/other/b", b"four", headers={"authorization": "Bearer w"})
            await process.application(visit.scope, visit.receive, visit.send, root="/other/")
            assert visit.status == 413

    async def test_serves_nobody_when_nothing_is_configured(self) -> None:
        with override_settings(DURABLE_STREAMS={"STORE": "memory"}):
            for headers in ({}, {"authorization": "Bearer "}, {"authorization": "Bearer None"}):
                visit = Visit("GET", "/v1/stream/a", headers=headers)
                await process.application(visit.scope, visit.receive, visit.send)
                assert visit.status == 401

    def test_is_an_app_of_its_own(self) -> None:
        with modify_settings(INSTALLED_APPS={"append": "durable_chat.streams.embedded"}):
            assert apps.get_app_config("durable_streams").name == "durable_chat.streams.embedded"
