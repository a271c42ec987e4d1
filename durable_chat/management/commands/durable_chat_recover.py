"""`manage.py durable_chat_recover`: finish runs of dead processes, begin what waits, erase old streams."""

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from durable_chat import conf
from durable_chat.runs import heart, loop, shutdown, tombs
from durable_chat.runs.sweep import Swept, sweep
from durable_chat.streams.protocol.errors import StreamError

LONGEST_SWEEP = 600.0


class Command(BaseCommand):
    """Once, or with `--loop` until it is interrupted. Exit status 1: something could not be done yet."""

    help = (
        "Finish the answers of processes that died, answer the messages that wait in free conversations, "
        "erase the streams of deleted ones. Each serving process does so itself, unless SWEEP_SECONDS is 0."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--loop", action="store_true", help="go on until interrupted")

    def handle(self, *args: Any, loop: bool, **options: Any) -> None:
        shutdown.watch()
        complete = False
        try:
            complete = self._once()
            while loop:
                time.sleep(conf.get().sweep_seconds or 1.0)
                complete = self._once()
        except KeyboardInterrupt:
            self.stderr.write("Waiting for the answers that are being written here.")
        _drain()
        if not complete:
            raise CommandError(
                "Not everything could be done, see the log: run this again when the streams service is back."
            )

    def _once(self) -> bool:
        try:
            swept = loop.block(sweep, timeout=LONGEST_SWEEP)
            erased = loop.block(tombs.erase, timeout=LONGEST_SWEEP)
        except (DatabaseError, StreamError) as error:
            self.stderr.write(f"{type(error).__name__}: {error}")
            return False
        self._tell(swept, erased)
        return not swept.failed

    def _tell(self, swept: Swept, erased: int) -> None:
        for run_id in swept.recovered:
            self.stdout.write(f"recovered {run_id}")
        for run_id in swept.begun:
            self.stdout.write(f"began {run_id}")
        if erased:
            self.stdout.write(f"erased {erased} streams")


def _drain() -> None:
    """What this command began ends before it does."""
    loop.block(heart.drain, timeout=None)
