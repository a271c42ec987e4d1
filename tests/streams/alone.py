"""The smallest site that has durable streams and no chat: settings, addresses, ASGI application."""

import os
from pathlib import Path

HOME = Path(os.environ["STREAMS_HOME"])

SECRET_KEY = "only-for-tests"
ROOT_URLCONF = "tests.streams.alone"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth"]
INSTALLED_APPS += ["durable_chat.streams.embedded"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": HOME / "db.sqlite3"}}
DURABLE_STREAMS = {"WRITE_TOKEN": "w", "READ_TOKEN": "r", **eval(os.environ.get("STREAMS_SETTINGS", "{}"))}

urlpatterns: list[object] = []


def asgi() -> object:
    """The host's asgi.py: `uvicorn --factory tests.streams.alone:asgi`."""
    os.environ["DJANGO_SETTINGS_MODULE"] = __name__
    from django.core.asgi import get_asgi_application

    from durable_chat.streams.embedded.process import mount

    return mount(get_asgi_application())
