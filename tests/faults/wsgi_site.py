"""The demo without an ASGI server: Django's own runserver, a thread for each request."""

from project.settings import *  # noqa: F403
from project.settings import INSTALLED_APPS as WITH_DAPHNE

INSTALLED_APPS = [app for app in WITH_DAPHNE if app != "daphne"]
