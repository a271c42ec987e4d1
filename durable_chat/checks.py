"""What `manage.py check` says about a host's configuration."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, router
from django.urls import NoReverseMatch, reverse
from django.views.debug import get_default_exception_reporter_filter

from durable_chat import backends, conf
from durable_chat.models import Conversation, Member, Message, Run, Tombstone
from durable_chat.runs import workers
from durable_chat.streams.embedded import conf as embedded

ROWS = (Conversation, Member, Message, Run, Tombstone)
NEEDED_APPS = ("django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions")


@register(Tags.compatibility)
def check_settings(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """DURABLE_CHAT can be read, and what it names can be imported."""
    unreadable: list[CheckMessage] = [
        Error(problem, id="durable_chat.E001") for problem in conf.problems(conf.raw())
    ]
    return unreadable or [*_unbuildable()]


@register(Tags.urls)
def check_urls(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """The host has given the endpoints addresses."""
    try:
        reverse("durable_chat:read")
    except NoReverseMatch:
        hint = 'Add path("", include("durable_chat.urls")) to the urlpatterns.'
        return [Error("The addresses of durable_chat are not included.", hint=hint, id="durable_chat.E003")]
    return []


@register(Tags.compatibility)
def check_sessions(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Visitors are known by their session and their login."""
    missing = [app for app in NEEDED_APPS if not apps.is_installed(app)]
    return [
        Error(f"durable_chat needs {app!r} in INSTALLED_APPS.", id="durable_chat.E004") for app in missing
    ]


@register(Tags.compatibility)
def check_routers(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """What runs write is read in the same transaction, which is one of the default database."""
    routes = {route(model) for route in (router.db_for_read, router.db_for_write) for model in ROWS}
    if routes == {DEFAULT_DB_ALIAS}:
        return []
    problem = 'A database router sends durable_chat elsewhere than to "default", where its transactions are.'
    hint = 'Have DATABASE_ROUTERS answer "default" for the app label "durable_chat", also for reads.'
    return [Error(problem, hint=hint, id="durable_chat.E006")]


@register(Tags.security)
def check_reports(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Django's error pages and mails show a request's headers, and would show users' keys among them."""
    hidden = get_default_exception_reporter_filter().cleanse_setting("HTTP_X_BYOK_MODEL", "key") != "key"
    if hidden or _setting("USER_KEYS", "forbidden") == "forbidden":
        return []
    problem = "Error pages and mails would show the users' keys (x-byok-…)."
    hint = 'Set DEFAULT_EXCEPTION_REPORTER_FILTER = "durable_chat.reporting.KeysHidden", or to a class of it.'
    return [Error(problem, hint=hint, id="durable_chat.E005")]


def _setting(name: str, default: Any) -> Any:
    """A setting as the host wrote it, which may be wrong in other places."""
    given = conf.raw()
    return given.get(name, default) if isinstance(given, Mapping) else default


def _streams() -> None:
    """The embedded server's own app checks its settings, if a host installs it."""
    if not conf.get().streams.remote and not apps.is_installed(embedded.__package__):
        embedded.load()


def _unbuildable() -> Sequence[CheckMessage]:
    found = []
    for build in (
        backends.get_provider,
        backends.get_permission,
        backends.get_on_error,
        _streams,
        workers.check,
    ):
        try:
            build()
        except ImproperlyConfigured as error:
            found.append(Error(str(error), id="durable_chat.E002"))
    return found
