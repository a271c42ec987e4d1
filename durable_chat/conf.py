"""The setting DURABLE_CHAT, parsed once into frozen values; nobody else here reads settings."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from django.conf import settings as django_settings
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from durable_chat.keys import ModelKey
from durable_chat.streams.protocol.secrets import Secret, StreamsSecret

NAME = "DURABLE_CHAT"
SERVICE_ID = re.compile(r"([A-Za-z0-9_~-][A-Za-z0-9._~-]*)?")
ELECTRIC_CLOUD = "https://api.electric-sql.cloud"
MOST: Final = 2**31 - 1  # seconds or bytes: what clocks, columns and reads take
KINDS = {
    str: "a string",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    list: "a list of strings",
}


@dataclass(frozen=True, slots=True)
class StreamsSettings:
    """Auth layer 1: this server to the streams service. All empty: the embedded server, in process.

    The base URL is `<ELECTRIC_URL>/v1/stream/<DS_SERVICE_ID>`; `DS_SECRET` goes there as a bearer token and
    nowhere else. `DS_READ_SECRET`, if there is one, goes with reads instead.
    """

    electric_url: str = ""
    ds_service_id: str = ""
    ds_secret: StreamsSecret = StreamsSecret()
    ds_read_secret: StreamsSecret = StreamsSecret()

    @property
    def remote(self) -> bool:
        return bool(self.ds_service_id)

    @property
    def base_url(self) -> str:
        return f"{(self.electric_url or ELECTRIC_CLOUD).rstrip('/')}/v1/stream/{self.ds_service_id}"


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """Auth layer 2: this server to the model.

    `BACKEND` is "scripted" (the default, needs no key) or the dotted path of an async generator function
    `answer(prompt)`; `API_KEY` reaches it as `prompt.api_key` and nothing else.
    """

    backend: str = "scripted"
    api_key: ModelKey = ModelKey()


@dataclass(frozen=True, slots=True)
class TasksSettings:
    """How workers are reached when they write the answers: an alias of TASKS, and one of its queues.

    An answer that none has begun after `AGAIN_SECONDS` is offered once more: its task may have been lost.
    """

    backend: str = "default"
    queue: str = "default"
    again_seconds: float = field(default=60.0, metadata={"least": 0.1})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a host can say. Seconds and bytes where a name ends so.

    A field's metadata may bound its values: `choices`, or `least` and, if it is not MOST, `most`.
    """

    streams: StreamsSettings = field(default_factory=StreamsSettings)
    provider: ProviderSettings = field(default_factory=ProviderSettings)
    launcher: str = field(default="process", metadata={"choices": ("process", "tasks")})
    tasks: TasksSettings = field(default_factory=TasksSettings)
    permission: str = "durable_chat.permissions.may"
    reauthorise_seconds: float = field(default=30.0, metadata={"least": 0.1, "most": 3600})
    allowed_origins: tuple[str, ...] = ()
    user_keys: str = field(default="forbidden", metadata={"choices": ("forbidden", "optional", "required")})
    create_on_send: bool = False
    when_busy: str = field(default="reject", metadata={"choices": ("reject", "queue", "interrupt")})
    lease_seconds: float = field(default=15.0, metadata={"least": 1, "most": 3600})
    sweep_seconds: float = field(default=1.0, metadata={"least": 0, "most": 60})
    max_body_bytes: int = field(default=32 * 1024 * 1024, metadata={"least": 1})
    max_runs: int = field(default=100, metadata={"least": 1})
    run_seconds: float = field(default=600.0, metadata={"least": 0.1})
    silence_seconds: float = field(default=120.0, metadata={"least": 0.1})
    answer_bytes: int = field(default=4 * 1024 * 1024, metadata={"least": 1})
    drain_seconds: float = field(default=10.0, metadata={"least": 0})
    on_error: str = "durable_chat.exceptions.public"


S = TypeVar("S", StreamsSettings, ProviderSettings, TasksSettings, Settings)


@lru_cache(maxsize=1)
def get() -> Settings:
    """The parsed setting.

    Raises ImproperlyConfigured with one sentence for every problem that `manage.py check` would name.
    """
    found = list(problems(raw()))
    if found:
        raise ImproperlyConfigured(" ".join(found))
    return _build(Settings, raw())


def raw() -> Any:
    """The setting as the host wrote it; it may be left out."""
    return getattr(django_settings, NAME, {})


def host(name: str) -> Any:
    """Another setting of the host's, or None."""
    return getattr(django_settings, name, None)


def sessions() -> tuple[str, type[SessionBase]]:
    """The name of the session cookie, and the class of what it names."""
    engine = import_module(django_settings.SESSION_ENGINE)
    return django_settings.SESSION_COOKIE_NAME, engine.SessionStore


def problems(value: Any) -> Iterator[str]:
    """One sentence for each thing that is wrong with a value of DURABLE_CHAT; none when it is right."""
    yield from _problems(Settings, value, NAME)
    if not isinstance(value, Mapping) or not isinstance(value.get("STREAMS", {}), Mapping):
        return
    yield from _of_the_service(value.get("STREAMS", {}))
    # What waits for its turn or for a worker waits as a row, and a user's key is never in one.
    if value.get("USER_KEYS", "forbidden") != "forbidden":
        for key, wanted in (("WHEN_BUSY", "reject"), ("LAUNCHER", "process")):
            if value.get(key, wanted) != wanted:
                yield f'{NAME}["USER_KEYS"] other than "forbidden" needs {NAME}["{key}"] to be "{wanted}".'
    origins = value.get("ALLOWED_ORIGINS", ())
    if _fits(origins, ()) and not all(map(_is_url, origins)):
        yield f'{NAME}["ALLOWED_ORIGINS"] lists origins, such as "https://app.example.com".'


def _of_the_service(streams: Mapping[str, Any]) -> Iterator[str]:
    where, url, service_id = f'{NAME}["STREAMS"]', streams.get("ELECTRIC_URL"), streams.get("DS_SERVICE_ID")
    known = [spec.name.upper() for spec in fields(StreamsSettings)]
    said = [name for name in known if streams.get(name) not in (None, "", ELECTRIC_CLOUD)]
    missing = [name for name in ("DS_SERVICE_ID", "DS_SECRET") if name not in said]
    if said and missing:
        yield (
            f"{where} is incomplete: beside {' and '.join(said)} there is no {' and no '.join(missing)}. "
            "Set both DS_SERVICE_ID and DS_SECRET, or none of these to use the embedded server."
        )
    if isinstance(url, str) and url and not _is_url(url):
        yield f'{where}["ELECTRIC_URL"] must be https:// or http://, a host and, if need be, a port.'
    if isinstance(url, str) and "/v1/stream" in url:
        yield (
            f'{where}["ELECTRIC_URL"] is the root of the service, without /v1/stream; the id of the service '
            "goes into DS_SERVICE_ID."
        )
    if isinstance(service_id, str) and not SERVICE_ID.fullmatch(service_id):
        yield f'{where}["DS_SERVICE_ID"] is one segment of a path, of A-Z, a-z, 0-9, ".", "_", "~" and "-".'
    for key in ("DS_SECRET", "DS_READ_SECRET"):
        secret = streams.get(key)
        if isinstance(secret, str) and not _fits_a_header(secret):
            yield f'{where}["{key}"] must be printable ASCII, with no space or line break around it.'


def _is_url(text: str) -> bool:
    """Whether there can be something at this address."""
    try:
        url = urlsplit(text)
        known = url.scheme in ("https", "http") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False
    return known and text.isprintable() and set(" ?#").isdisjoint(text)


def _fits_a_header(secret: str) -> bool:
    return secret.isascii() and secret.isprintable() and secret == secret.strip()


def _problems(kind: type[Any], raw: Any, where: str) -> Iterator[str]:
    if not isinstance(raw, Mapping):
        yield f"{where} must be a dictionary, not {type(raw).__name__}."
        return
    known = {spec.name.upper(): spec for spec in fields(kind)}
    for key, value in raw.items():
        if key not in known:
            near = get_close_matches(str(key).upper(), known, n=1, cutoff=0.4)
            hint = f" Did you mean {near[0]!r}?" if near else f" Known keys: {', '.join(known)}."
            yield f"{where} has an unknown key {key!r}.{hint}"
            continue
        section = _section(known[key])
        if section is not None:
            yield from _problems(section, value, f'{where}["{key}"]')
        elif not _fits(value, known[key].default):
            wanted = KINDS[_kind(known[key].default)]
            yield f'{where}["{key}"] must be {wanted}, not of type {type(value).__name__}.'
        else:
            yield from _out_of_bounds(value, known[key].metadata, f'{where}["{key}"]')


def _out_of_bounds(value: Any, bounds: Mapping[str, Any], where: str) -> Iterator[str]:
    """What a field's metadata says of its values: `choices`, or the `least` and the `most`."""
    choices, least, most = bounds.get("choices", [value]), bounds.get("least"), bounds.get("most", MOST)
    if value not in choices:
        yield f"{where} must be one of {', '.join(map(repr, choices))}, not {value!r}."
    if least is not None and not least <= value <= most:
        yield f"{where} must be from {least} to {most}."


def _build(kind: type[S], raw: Mapping[str, Any]) -> S:
    values: dict[str, Any] = {}
    for spec in fields(kind):
        if spec.name.upper() not in raw:
            continue
        value, section = raw[spec.name.upper()], _section(spec)
        values[spec.name] = _value(spec, value) if section is None else _build(section, value)
    return kind(**values)


def _value(spec: "Field[Any]", given: Any) -> Any:
    """What a host wrote, as the field's type: secrets are opaque from here on, and lists do not change."""
    return type(spec.default)(given) if isinstance(spec.default, Secret | tuple) else given


def _kind(default: Any) -> type[Any]:
    """What a host writes for a field of this default."""
    return str if isinstance(default, Secret) else list if isinstance(default, tuple) else type(default)


def _section(spec: "Field[Any]") -> Any | None:
    return None if spec.default_factory is MISSING else spec.default_factory


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, _kind(default))


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == NAME:
        get.cache_clear()


setting_changed.connect(_forget, dispatch_uid="durable_chat.conf")
