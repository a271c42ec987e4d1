"""`manage.py durable_streams`: look at this site's streams, write to them, follow them, erase them."""

import asyncio
import os
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Coroutine
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from durable_chat.streams.embedded import process
from durable_chat.streams.embedded.descriptions import describe
from durable_chat.streams.embedded.terminal import Terminal, appended, tailed
from durable_chat.streams.protocol.errors import (
    BadRequest,
    StreamError,
    StreamGone,
    StreamNotFound,
    Unavailable,
)
from durable_chat.streams.protocol.offsets import NOW, START, decode
from durable_chat.streams.stores.catalogue import CataloguedStore, Listed
from durable_chat.streams.stores.memory import MemoryStore
from durable_chat.streams.stores.sqlite import SQLiteStore

_PAGE: Final = 500
_REFUSED, _NOT_THERE, _UNAVAILABLE, _INTERRUPTED = 1, 3, 4, 130

_EXITS = """\
exit status: 0 done; 1 refused; 2 called wrongly; 3 no such stream; 4 the store cannot answer now.
Other processes may serve the same streams meanwhile."""


class Command(BaseCommand):
    """One subcommand a verb. What is asked for goes to stdout, everything about it to stderr."""

    help = "List, show, append to, tail, delete and sweep the streams of the embedded server."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.epilog = _EXITS
        verbs = parser.add_subparsers(dest="verb", required=True)

        def verb(name: str, about: str, *, path: bool = True) -> CommandParser:
            added: CommandParser = verbs.add_parser(name, help=about, description=about, epilog=_EXITS)
            if path:
                added.add_argument("path", type=_name, help="the stream's path below the server's root")
            added.add_argument("--json", action="store_true", help="print JSON, one object a line")
            return added

        listing = verb("list", "List streams, sorted by path.", path=False)
        listing.add_argument("--prefix", type=_name, default="", help="only those whose path begins so")
        listing.add_argument("--limit", type=_count, help="at most so many")
        verb("show", "Show a stream's state.")
        append = verb("append", "Append stdin: a JSON message a line to a JSON stream, bytes to any other.")
        append.add_argument("--create", metavar="CONTENT_TYPE", help="create the stream if it is not there")
        append.add_argument("--close", action="store_true", help="close the stream behind what is appended")
        tail = verb("tail", "Print what a stream holds, and what is appended to it until it is closed.")
        tail.add_argument("--offset", type=_offset, default=START, help="begin behind it; -1: all, now: none")
        tail.add_argument("--no-follow", action="store_true", help="end when there is no more for now")
        delete = verb("delete", "Delete a stream and erase its bytes.")
        delete.add_argument("--yes", action="store_true", help="do not ask")
        verb("sweep", "Erase streams that have expired.", path=False)

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        self._terminal = Terminal(self.stdout, self.stderr, json=options["json"])
        do: Callable[..., Coroutine[Any, Any, None]] = getattr(self, f"_{verb}")
        try:
            asyncio.run(do(_store(), options))
            self.stdout.flush()
        except StreamError as error:
            raise _told(error, options.get("path", "")) from None
        except BrokenPipeError:  # whoever read the output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(_REFUSED) from None
        except KeyboardInterrupt:
            raise SystemExit(_INTERRUPTED) from None

    async def _list(self, store: CataloguedStore, options: dict[str, Any]) -> None:
        left, after = options["limit"] or sys.maxsize, ""
        while left:
            asked = min(left, _PAGE)
            page = await store.scan(prefix=options["prefix"], after=after, limit=asked)
            for listed in page:
                self._terminal.row(describe(listed))
            if len(page) < asked:
                return
            left, after = left - asked, page[-1].path

    async def _show(self, store: CataloguedStore, options: dict[str, Any]) -> None:
        self._terminal.facts(describe(await _find(store, options["path"])))

    async def _append(self, store: CataloguedStore, options: dict[str, Any]) -> None:
        count, tail = await appended(
            process.handle,
            options["path"],
            create=options["create"],
            close=options["close"],
        )
        self._terminal.done({"appended": count, "tail": tail}, f"Appended {count}; the tail is {tail}.")

    async def _tail(self, store: CataloguedStore, options: dict[str, Any]) -> None:
        follow = not options["no_follow"]
        await tailed(self._terminal, store, options["path"], offset=options["offset"], follow=follow)

    async def _delete(self, store: CataloguedStore, options: dict[str, Any]) -> None:
        path = options["path"]
        listed = await _find(store, path)
        if not (options["yes"] or _agreed(f"Delete {path!r} with its {listed.size} bytes for ever?")):
            raise CommandError("Nothing was deleted.", returncode=_REFUSED)
        await store.delete(path)
        self._terminal.done({"deleted": path}, f"Deleted {path!r}.")

    async def _sweep(self, store: CataloguedStore, options: dict[str, Any]) -> None:
        swept, last = 0, _PAGE
        while last == _PAGE:
            last = await store.sweep(limit=_PAGE)
            swept += last
        self._terminal.done({"swept": swept}, f"Erased {swept} expired streams.")


def _store() -> CataloguedStore:
    try:
        store = process.store()
    except ImproperlyConfigured as error:
        raise CommandError(str(error)) from None
    if isinstance(store, MemoryStore):
        raise CommandError(
            "The streams are kept in the memory of the server's process, which no command can see: "
            'DURABLE_STREAMS["STORE"] is "memory".'
        )
    return store


async def _find(store: CataloguedStore, path: str) -> Listed:
    """The stream at a path. Raises ``StreamNotFound`` or ``StreamGone``."""
    stream = await store.head(path)
    found = [listed for listed in await store.scan(prefix=path, limit=1) if listed.path == path]
    return found[0] if found else Listed(path, stream, 0)


def _told(error: StreamError, path: str) -> CommandError:
    if isinstance(error, StreamNotFound):
        return CommandError(f"There is no stream {path!r}.", returncode=_NOT_THERE)
    if isinstance(error, StreamGone):
        return CommandError(f"{path!r} was deleted; its forks are still there.", returncode=_NOT_THERE)
    if isinstance(error, Unavailable):
        hint = " Is its file locked, read-only or its disk full?" if _in_a_file() else ""
        return CommandError(f"{error}{hint}", returncode=_UNAVAILABLE)
    return CommandError(str(error), returncode=_REFUSED)


def _in_a_file() -> bool:
    return isinstance(process.store(), SQLiteStore)


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise CommandError("Nobody is there to be asked: say --yes.", returncode=_REFUSED)
    return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}


def _name(text: str) -> str:
    if not text.isprintable():  # bytes that are no UTF-8, for one
        raise ArgumentTypeError("not a name that a stream can have")
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError("not a number above 0")
    return int(text)


def _offset(text: str) -> str:
    try:
        decode(text)
    except BadRequest:
        raise ArgumentTypeError(f"not an offset as show prints it, nor {START} or {NOW}") from None
    return text
