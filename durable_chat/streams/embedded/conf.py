"""``DURABLE_STREAMS``: the settings of the embedded server, read here and nowhere else."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from durable_chat.streams.live import LONG_POLL_SECONDS, SSE_SECONDS
from durable_chat.streams.server.auth import Access
from durable_chat.streams.server.options import MAX_BODY
from durable_chat.streams.stores.file import Synchronous
from durable_chat.streams.stores.recent import RECENT_BYTES

T = TypeVar("T")

_APP: Final = "durable_chat.streams.embedded"
_STORES: Final = ("auto", "sqlite", "postgres", "memory")
_MOST: Final = sys.maxsize  # and not without end
_DJANGOS: Final = frozenset({"context", "cursor_factory", "prepare_threshold"})

_DEFAULTS: Final[Mapping[str, Any]] = {
    "STORE": "auto",
    "SQLITE_PATH": None,
    "SYNCHRONOUS": "FULL",
    "RECENT_BYTES": RECENT_BYTES,
    "WRITE_TOKEN": "",
    "READ_TOKEN": "",
    "ANONYMOUS": False,
    "MAX_BODY": MAX_BODY,
    "SSE_SECONDS": SSE_SECONDS,
    "LONG_POLL_SECONDS": LONG_POLL_SECONDS,
}


@dataclass(frozen=True, slots=True)
class StreamsConf:
    """How the embedded server runs. It keeps its streams in PostgreSQL, in a SQLite file, or in memory."""

    sqlite_path: Path | None = None
    synchronous: Synchronous = "FULL"
    access: Access = field(default_factory=Access)
    max_body: int = MAX_BODY
    sse_seconds: float = SSE_SECONDS
    long_poll_seconds: float = LONG_POLL_SECONDS
    postgres: bool = False
    recent_bytes: int = RECENT_BYTES


def load() -> StreamsConf:
    """The settings as they are now. Raises ``ImproperlyConfigured`` with a sentence that says what to do."""
    return parse(getattr(settings, "DURABLE_STREAMS", {}))


def parse(given: Mapping[str, Any]) -> StreamsConf:
    """What a ``DURABLE_STREAMS`` mapping means."""
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured("DURABLE_STREAMS is a dictionary.")
    for key in given:
        _check_known(key)
    values = _Values({**_DEFAULTS, **given})
    postgres = _in_postgres(values)
    return StreamsConf(
        sqlite_path=None if postgres else _sqlite_path(values),
        synchronous=cast(Synchronous, values.choice("SYNCHRONOUS", ("FULL", "NORMAL"))),
        access=Access(
            write_token=values.token("WRITE_TOKEN"),
            read_token=values.token("READ_TOKEN"),
            anonymous=values.flag("ANONYMOUS"),
        ),
        max_body=int(values.number("MAX_BODY", at_least=1)),
        sse_seconds=values.number("SSE_SECONDS", at_least=1),
        long_poll_seconds=values.number("LONG_POLL_SECONDS", at_least=0),
        postgres=postgres,
        recent_bytes=int(values.number("RECENT_BYTES", at_least=0)),
    )


def connection_parameters() -> dict[str, Any]:
    """What psycopg needs to reach the default database as Django does, without Django's cursors."""
    database = connections["default"]
    parameters = database.get_connection_params()
    own = {key: value for key, value in parameters.items() if key not in _DJANGOS}
    return {**own, "assume_role": database.settings_dict["OPTIONS"].get("assume_role")}


def is_pooled() -> bool:
    """Whether the default database is behind a pooler that lends connections by the transaction."""
    return bool(connections["default"].settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"))


def _check_known(key: str) -> None:
    if key in _DEFAULTS:
        return
    near = get_close_matches(str(key).upper(), _DEFAULTS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it knows {', '.join(_DEFAULTS)}."
    raise ImproperlyConfigured(f"DURABLE_STREAMS does not know {key!r}: {hint}")


@dataclass(frozen=True, slots=True)
class _Values:
    """The settings by type. What is wrong is named, never shown: it may be a token."""

    given: Mapping[str, Any] = field(repr=False)

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        if self.given[key] not in allowed:
            raise _wrong(key, f"one of {', '.join(map(repr, allowed))}")
        return str(self.given[key])

    def token(self, key: str) -> str:
        text = self._of_type(key, str, "a string")
        if text != text.strip():  # as of a file that ends its line: no request can bring that
            raise _wrong(key, "a string without space or line break around it")
        return text

    def flag(self, key: str) -> bool:
        return self._of_type(key, bool, "True or False")

    def number(self, key: str, *, at_least: float) -> float:
        value = self.given[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not at_least <= value <= _MOST:
            raise _wrong(key, f"a number, {at_least} or more")
        return value

    def _of_type(self, key: str, kind: type[T], description: str) -> T:
        if not isinstance(self.given[key], kind):
            raise _wrong(key, description)
        return cast(T, self.given[key])


def _wrong(key: str, wanted: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f'DURABLE_STREAMS["{key}"] must be {wanted}.')


def _in_postgres(values: _Values) -> bool:
    """Whether the streams are to live in the default database, which then must be ready for it."""
    store = values.choice("STORE", _STORES)
    at_hand = connections["default"].vendor == "postgresql"
    if store != "postgres" and (store != "auto" or values.given["SQLITE_PATH"] is not None or not at_hand):
        return False
    if not at_hand:
        raise ImproperlyConfigured(
            'DURABLE_STREAMS["STORE"] is "postgres", but the default database is not PostgreSQL.'
        )
    if not apps.is_installed(_APP):
        raise ImproperlyConfigured(
            f'The default database is PostgreSQL: add "{_APP}" to INSTALLED_APPS and run `manage.py migrate` '
            'to keep the streams in it, or set DURABLE_STREAMS["SQLITE_PATH"] to a file to keep them there.'
        )
    if find_spec("psycopg") is None:
        raise ImproperlyConfigured(
            "Streams in PostgreSQL need psycopg 3: install durable-chat[postgres], or set "
            'DURABLE_STREAMS["SQLITE_PATH"] to a file.'
        )
    return True


def _sqlite_path(values: _Values) -> Path | None:
    store = values.choice("STORE", _STORES)
    path = values.given["SQLITE_PATH"]
    if store == "memory":
        return None
    if path is None:
        return _beside_default_database(store)
    if not isinstance(path, str | Path):
        raise _wrong("SQLITE_PATH", "a path or None")
    return Path(path)


def _beside_default_database(store: str) -> Path | None:
    """A file of its own: writers of streams would starve the site's own in the same one."""
    database = connections["default"]
    if database.vendor != "sqlite":
        raise ImproperlyConfigured(
            "The default database is not SQLite, so the streams need a place of their own: set "
            'DURABLE_STREAMS["SQLITE_PATH"] to a file, or DURABLE_STREAMS["STORE"] to "memory".'
        )
    if not cast(Any, database).is_in_memory_db():
        path = Path(database.settings_dict["NAME"])
        return path.with_name(f"{path.stem}.streams{path.suffix}")
    if store == "sqlite":
        raise ImproperlyConfigured(
            'The default database is in memory: set DURABLE_STREAMS["SQLITE_PATH"] to a file.'
        )
    return None
