"""What must be true of a conversation once its run has ended, however it ended."""

import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import psycopg

from durable_chat.chunks import is_terminal, run_id_of
from durable_chat.messages import fold
from durable_chat.models import Run
from durable_chat.streams.protocol.offsets import START
from tests.faults.people import Item, Person


class Row(NamedTuple):
    """A run as the database has it."""

    id: str
    state: str
    lapsed: bool
    """Its lease has run out."""
    asked: str
    """The parts of the message that it answers, as JSON; empty once that has been forgotten."""

    @property
    def ended(self) -> bool:
        return self.state not in Run.UNFINISHED

    @property
    def script(self) -> str:
        """What it says when nothing interrupts it."""
        return "".join(words(int(count)) for count in re.findall(r"words=(\d+)", self.asked))


def rows(directory: Path, conversation: str) -> list[Row]:
    """The conversation's runs, oldest first, of the site whose servers share this directory."""
    url = (directory / "database.url").read_text()
    if url.startswith("postgres"):
        query = _RUNS.format(lapsed="lease_expires_at < statement_timestamp()", parameter="%s")
        with psycopg.connect(url) as database:
            return [Row(*row) for row in database.execute(query.encode(), [conversation])]
    query = _RUNS.format(lapsed="julianday(lease_expires_at) < julianday('now')", parameter="?")
    with closing(sqlite3.connect(f"file:{directory / 'live.sqlite3'}?mode=ro", uri=True)) as connection:
        return [Row(*row) for row in connection.execute(query, [conversation])]


_RUNS = """
    SELECT run.id, state, lease_expires_at IS NOT NULL AND {lapsed}, coalesce(cast(parts AS text), '')
    FROM durable_chat_run AS run LEFT JOIN durable_chat_message AS asked ON asked.id = run.message_id
    WHERE run.conversation_id = {parameter} ORDER BY run.created_at
"""


def words(count: int) -> str:
    """What the scripted provider answers to ``words=<count>``."""
    return "".join(f"w{number} " for number in range(count))


def said(chunks: Iterable[Item], run_id: str) -> str:
    """The text of a run's answer."""
    return "".join(chunk["delta"] for chunk in chunks if "delta" in chunk and _is_of(chunk, run_id))


def echoes(chunks: Iterable[Item]) -> list[str]:
    """The ids of the users' messages in the stream."""
    return [
        chunk["messageId"]
        for chunk in chunks
        if chunk["type"] == "TEXT_MESSAGE_START" and chunk["role"] == "user"
    ]


async def settled(person: Person, conversation: str, *, directory: Path) -> list[Item]:
    """The conversation's chunks once no run is at work, after a look at everything that must hold of them."""
    hydrated = await person.idle(conversation)
    chunks, tail = await person.transcript(conversation)
    assert hydrated["offset"] == (tail if chunks else START)
    shown = [(message["id"], message["parts"]) for message in hydrated["messages"]]
    assert shown == [(message.id, list(message.parts)) for message in fold(chunks)]
    for row in rows(directory, conversation):
        assert row.ended
        end = the_end(chunks, row.id)
        assert (row.state == "done") == (chunks[end]["type"] == "RUN_FINISHED")
        assert not any(_is_of(chunk, row.id) for chunk in chunks[end + 1 :])
        text = said(chunks, row.id)
        assert row.script.startswith(text)
        assert row.state != "done" or text == row.script
    return chunks


def the_end(chunks: list[Item], run_id: str) -> int:
    """Where the run's one terminal chunk is."""
    ends = [place for place, chunk in enumerate(chunks) if is_terminal(chunk, run_id)]
    assert len(ends) == 1, ends
    return ends[0]


def _is_of(chunk: Item, run_id: str) -> bool:
    return run_id_of(chunk) == run_id or str(chunk.get("messageId")).startswith(f"answer-{run_id}")
