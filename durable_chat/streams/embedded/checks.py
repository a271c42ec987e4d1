"""What `manage.py check` says about ``DURABLE_STREAMS``."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.exceptions import ImproperlyConfigured

from durable_chat.streams.embedded import conf


@register(Tags.compatibility)
def check_settings(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """The settings can be read, and say where streams are kept. Touches no database and no file."""
    try:
        conf.load()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="durable_streams.E001")]
    return []
