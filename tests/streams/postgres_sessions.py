"""What tests see and do behind a PostgreSQL store's back: its sessions, its locks, its notices."""

import asyncio

from durable_chat.streams.embedded.postgres import PostgresStore
from durable_chat.streams.embedded.postgres_commit import CHANNEL
from tests.streams.postgres import Schema
from tests.streams.store_contract import SOON, begun


def cut(schema: Schema, role: str = "%") -> int:
    """Have the server end this schema's connections; how many there were."""
    return len(
        schema.execute(
            "SELECT pg_terminate_backend(a.pid, 5000) FROM pg_stat_activity a"
            " WHERE a.application_name LIKE %s AND a.pid <> pg_backend_pid()",
            f"{schema.name} {role}",
        )
    )


def connections(schema: Schema) -> int:
    found = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE %s"
    return len(schema.execute(found, f"{schema.name} %"))


def notify(schema: Schema, payload: str) -> None:
    schema.execute(f"SELECT pg_notify({CHANNEL}, %s)", payload)


async def blocked(schema: Schema) -> None:
    """By the time that this returns a writer waits for a lock."""
    waits = "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'"
    async with asyncio.timeout(SOON):
        while not await asyncio.to_thread(schema.execute, waits, f"{schema.name} writer"):
            pass


async def listening(store: PostgresStore, schema: Schema) -> "asyncio.Task[None]":
    """A wait at "a", by the time that LISTEN has been seen to work."""
    wait = asyncio.create_task(store.wait("a", (await store.head("a")).tail, timeout=SOON))
    async with asyncio.timeout(SOON):
        while not schema.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = %s", f"{schema.name} listener"
        ):
            await begun(store)
    return wait
