"""The demo, with every log record written out in full and requests that end in Django's error page."""

import logging

from project.settings import *  # noqa: F403
from project.settings import MIDDLEWARE as DEMO_MIDDLEWARE


class Everything(logging.Formatter):
    """A record with all that is on it, whoever put it there."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{super().format(record)} {vars(record)!r}"


ROOT_URLCONF = "tests.leaks.site"
MIDDLEWARE = [*DEMO_MIDDLEWARE, "tests.leaks.site.provoking"]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"all": {"()": Everything}},
    "handlers": {"all": {"class": "logging.StreamHandler", "formatter": "all"}},
    "root": {"level": 1, "handlers": ["all"]},
    "loggers": {
        name: {"level": 1, "propagate": True} for name in ("django", "django.db.backends", "asyncio")
    },
}
