"""What `manage.py check` warns of: what works, and would leak, lose or hold back."""

import logging
from collections import Counter
from collections.abc import AsyncIterable, Iterator, Mapping, Sequence
from inspect import isfunction
from ipaddress import ip_address
from typing import Any, Final, get_origin, get_type_hints
from urllib.parse import urlsplit

from channels.security.websocket import OriginValidator
from django.apps import AppConfig
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.checks import CheckMessage, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections
from django.utils.module_loading import import_string

from durable_chat import conf
from durable_chat.consumers import ConversationConsumer
from durable_chat.streams.embedded import conf as embedded

log = logging.getLogger(__name__)

HOLDING: Final = ("django.middleware.gzip.GZipMiddleware", "django.middleware.http.ConditionalGetMiddleware")
SECRETS: Final = (
    (conf.NAME, "STREAMS", "DS_SECRET"),
    (conf.NAME, "STREAMS", "DS_READ_SECRET"),
    (conf.NAME, "PROVIDER", "API_KEY"),
    ("DURABLE_STREAMS", "WRITE_TOKEN"),
    ("DURABLE_STREAMS", "READ_TOKEN"),
    ("SECRET_KEY",),
)


@register(Tags.security)
def check_deployment(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Every doubt about a configuration that can be read; `check_settings` names what cannot."""
    if any(conf.problems(conf.raw())):
        return []
    doubts = (
        _plain_http,
        _open_websocket,
        _forgetful_store,
        _one_secret_twice,
        _kept_connections,
        _holding_middleware,
        _development_key,
        _odd_provider,
        _meeting_writers,
        _open_streams,
        _missing_middleware,
    )
    return [found for doubt in doubts for found in doubt()]


def _warning(number: int, problem: str, hint: str) -> CheckMessage:
    return Warning(problem, hint=hint, id=f"durable_chat.W{number:03}")


def _plain_http() -> Iterator[CheckMessage]:
    streams = conf.get().streams
    url = urlsplit(streams.electric_url)
    if streams.remote and url.scheme == "http" and not _is_loopback(url.hostname or ""):
        problem = f"DS_SECRET and every message go to {url.hostname} unencrypted."
        yield _warning(1, problem, 'Let DURABLE_CHAT["STREAMS"]["ELECTRIC_URL"] begin with https://.')


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _open_websocket() -> Iterator[CheckMessage]:
    if _is_open(_asgi_application()):
        problem = "Pages of any other site can read conversations through their visitors' WebSockets."
        hint = "Use durable_chat.asgi.mount, or wrap your routing in AllowedHostsOriginValidator."
        yield _warning(2, problem, hint)


def _asgi_application() -> Any:
    """None where it is not said, or cannot be imported here: that is for its server to complain of."""
    try:
        return import_string(conf.host("ASGI_APPLICATION") or "")
    except Exception as error:  # noqa: BLE001 - the host's own module, which may raise anything
        log.debug("ASGI_APPLICATION was not looked at: %s", type(error).__name__)
        return None


def _is_open(application: Any) -> bool:
    """Whether Channels' routing leads to the chat's WebSocket past no check of the origin."""
    if application is None or isinstance(application, OriginValidator):
        return False
    if getattr(application, "consumer_class", None) is ConversationConsumer:
        return True
    by_type = getattr(application, "application_mapping", {})
    routes = [route.callback for route in getattr(application, "routes", ())]
    inner = getattr(application, "inner", None)
    return any(map(_is_open, (by_type.get("websocket"), inner, *routes)))


def _forgetful_store() -> Iterator[CheckMessage]:
    if conf.host("DEBUG") or conf.get().streams.remote:
        return
    try:
        streams = embedded.load()
    except ImproperlyConfigured:
        return  # an error of its own
    if not streams.postgres and streams.sqlite_path is None:
        problem = "The streams are kept in memory: every restart empties all conversations."
        yield _warning(3, problem, 'Set DURABLE_STREAMS["STORE"] to "auto", or SQLITE_PATH to a file.')


def _one_secret_twice() -> Iterator[CheckMessage]:
    texts = {path: _said(path) for path in SECRETS}
    shared = [text for text, count in Counter(texts.values()).items() if text and count > 1]
    for text in shared:
        names = [_written(path) for path in SECRETS if texts[path] == text]
        problem = f"One secret is used for {' and '.join(names)}: who learns one has both."
        yield _warning(4, problem, "Give each a secret of its own.")


def _written(path: Sequence[str]) -> str:
    return path[0] + "".join(f'["{key}"]' for key in path[1:])


def _said(path: Sequence[str]) -> Any:
    value = conf.host(path[0])
    for key in path[1:]:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else None


def _kept_connections() -> Iterator[CheckMessage]:
    for database in connections.all():
        if database.vendor == "postgresql" and database.settings_dict["CONN_MAX_AGE"] != 0:
            problem = f"Under ASGI, CONN_MAX_AGE of the database {database.alias!r} leaks connections."
            yield _warning(5, problem, 'Set it to 0; use a pool (OPTIONS: {"pool": True}) or PgBouncer.')


def _holding_middleware() -> Iterator[CheckMessage]:
    for name in set(HOLDING) & set(conf.host("MIDDLEWARE") or ()):
        problem = f"{name} is around the stream views, where it has nothing to do."
        hint = "They opt out of it; others of its kind hold live answers back. Let the proxy compress."
        yield _warning(6, problem, hint)


def _development_key() -> Iterator[CheckMessage]:
    if not conf.host("DEBUG") and str(conf.host("SECRET_KEY")).startswith("django-insecure-"):
        problem = "SECRET_KEY is a development key, which signs everybody's sessions, and DEBUG is off."
        yield _warning(7, problem, "Set a SECRET_KEY of your own, from the environment.")


def _odd_provider() -> Iterator[CheckMessage]:
    backend = conf.get().provider.backend
    try:
        answer = import_string(backend)
        returned = get_type_hints(answer).get("return") if isfunction(answer) else None
    except (ImportError, NameError, TypeError):
        return  # an error of its own, or nothing to be known
    kind = get_origin(returned) or returned
    if isinstance(kind, type) and not issubclass(kind, AsyncIterable):
        problem = f"The provider {backend!r} says that it returns {kind.__name__}, which is no answer."
        yield _warning(8, problem, "Make it an async generator function: `async def` with `yield`.")


def _meeting_writers() -> Iterator[CheckMessage]:
    """SQLite as `startproject` sets it up: fine for one developer, and refuses writers who come together."""
    database = connections[DEFAULT_DB_ALIAS]
    mode = database.settings_dict["OPTIONS"].get("transaction_mode") or ""
    if not conf.host("DEBUG") and database.vendor == "sqlite" and mode.upper() != "IMMEDIATE":
        problem = 'The database "default" is SQLite as for development: writes that meet in it may get 503.'
        hint = "Give it the OPTIONS of the README's section on deployment, or use PostgreSQL."
        yield _warning(9, problem, hint)


def _open_streams() -> Iterator[CheckMessage]:
    streams = conf.host("DURABLE_STREAMS")
    if not conf.host("DEBUG") and isinstance(streams, Mapping) and streams.get("ANONYMOUS"):
        problem = "Anybody may read and write every stream, and so every conversation, at /v1/stream/."
        yield _warning(10, problem, 'Leave DURABLE_STREAMS["ANONYMOUS"] out; name tokens instead.')


def _missing_middleware() -> Iterator[CheckMessage]:
    """No error: a host whose users come by a token may know them by a middleware of its own."""
    used = [_imported(name) for name in conf.host("MIDDLEWARE") or ()]
    for needed in (SessionMiddleware, AuthenticationMiddleware):
        if not any(isinstance(kind, type) and issubclass(kind, needed) for kind in used):
            problem = f"There is no {needed.__name__} in MIDDLEWARE, so the views do not know their visitors."
            yield _warning(11, problem, f"Add {needed.__module__}.{needed.__name__}.")


def _imported(name: str) -> Any:
    try:
        return import_string(name)
    except ImportError:
        return None  # Django says so
