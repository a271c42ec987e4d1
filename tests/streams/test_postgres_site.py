"""A site whose default database is PostgreSQL."""

import subprocess
import sys
from pathlib import Path

from tests.streams.postgres import Schema
from tests.streams.store_contract import SOON

ROOT = Path(__file__).resolve().parents[2]


class TestSite:
    def test_is_told_to_migrate(self, schema: Schema) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "django", "durable_streams", "list"],
            check=False,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**schema.environment(), "TEST_POSTGRES_SCHEMA": "nowhere"},
            timeout=SOON,
        )
        assert done.returncode == 4
        assert "run `manage.py migrate`" in done.stderr
        assert "file" not in done.stderr

    def test_keeps_its_streams_in_its_database_without_being_told(self, schema: Schema) -> None:
        program = """
import asyncio, django
django.setup()
from durable_chat.streams.embedded import process
from durable_chat.streams.protocol.exchange import Request

put = Request("PUT", "a", {}, {"content-type": "text/plain"}, b"abc")
assert asyncio.run(process.handle(put)).status == 201
assert asyncio.run(process.handle(Request("GET", "a"))).body == b"abc"
"""
        subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            check=True,
            cwd=ROOT,
            env=schema.environment(),
            timeout=SOON,
        )
        assert schema.execute("SELECT path, tail FROM durable_streams_stream") == [("a", 3)]

    def test_has_the_tables_that_its_models_say(self, schema: Schema) -> None:
        command = [sys.executable, "-m", "django", "makemigrations", "--check", "--dry-run"]
        subprocess.run(command, check=True, cwd=ROOT, env=schema.environment(), timeout=SOON)

    def test_knows_its_streams_as_models(self, schema: Schema) -> None:
        program = """
import asyncio, django
django.setup()
from durable_chat.streams.embedded import models, process
from durable_chat.streams.protocol.exchange import Request

stamp = {"content-type": "text/plain", "producer-id": "p", "producer-epoch": "0", "producer-seq": "0"}
asyncio.run(process.handle(Request("PUT", "a", {}, {"content-type": "text/plain"})))
asyncio.run(process.handle(Request("POST", "a", {}, stamp, b"abc")))
stream = models.Stream.objects.get()
told = [str(stream), str(stream.batch_set.get()), str(stream.producer_set.get())]
assert told == ["a", "0 to 3", "p at 0/0"]
stream.delete()
assert not models.Batch.objects.exists() and not models.Producer.objects.exists()
"""
        subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            check=True,
            cwd=ROOT,
            env=schema.environment(),
            timeout=SOON,
        )
