"""A schema of our own in a PostgreSQL. `python -m benchmarks.postgres CONNINFO` makes the tables in it."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import django
import psycopg
from django.conf import settings
from django.core.management import call_command
from psycopg.conninfo import conninfo_to_dict, make_conninfo

URL: Final = os.environ.get("BENCH_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/test")


def at_hand() -> bool:
    """Whether there is one to measure."""
    try:
        psycopg.connect(URL, connect_timeout=3).close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def schema() -> Iterator[str]:
    """What to connect with; the schema is dropped at the end."""
    name = f"bench_{secrets.token_hex(6)}"
    with psycopg.connect(URL, autocommit=True) as owner:
        owner.execute(psycopg.sql.SQL("CREATE SCHEMA {}").format(psycopg.sql.Identifier(name)))
        try:
            conninfo = make_conninfo(URL, options=f"-c search_path={name}")
            migrate = [sys.executable, "-m", "benchmarks.postgres", conninfo]
            subprocess.run(migrate, check=True, cwd=Path(__file__).parents[1])
            yield conninfo
        finally:
            owner.execute(psycopg.sql.SQL("DROP SCHEMA {} CASCADE").format(psycopg.sql.Identifier(name)))


def main() -> None:
    """Make the tables, as a site's own `migrate` does."""
    given = conninfo_to_dict(sys.argv[1])
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": given.pop("dbname"),
        "OPTIONS": given,
    }
    settings.configure(
        SECRET_KEY="for-measuring-only",
        INSTALLED_APPS=["durable_chat.streams.embedded"],
        USE_TZ=True,
        DATABASES={"default": database},
    )
    django.setup()
    call_command("migrate", verbosity=0)


if __name__ == "__main__":
    main()
