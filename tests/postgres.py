"""A PostgreSQL database for servers of their own: made for a test, dropped at its end."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import psycopg

from tests.streams.postgres import URL


@contextmanager
def database() -> Iterator[str]:
    """Its URL. Whoever is still connected at the end is thrown out."""
    name = f"durable_chat_{uuid4().hex[:12]}"
    with psycopg.connect(URL, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield f"{URL.rpartition('/')[0]}/{name}"
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
