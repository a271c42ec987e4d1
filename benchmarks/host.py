"""A Django site in the same process as the streams, with one view that makes one ordinary write."""

from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.utils import timezone
from django.utils.crypto import get_random_string


def write(_: HttpRequest) -> HttpResponse:
    """One row in the host's database, through the ORM."""
    from django.contrib.sessions.models import Session  # importable once the apps are loaded

    Session.objects.create(session_key=get_random_string(32), session_data="", expire_date=timezone.now())
    return HttpResponse(status=204)


urlpatterns = [path("write", write)]


def beside(streams: Any, *, root: str, database: Path) -> Any:
    """An ASGI application: ``streams`` below ``root``, and everywhere else Django with its own database."""
    settings.configure(
        SECRET_KEY="for-measuring-only",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=["django.contrib.sessions"],
        USE_TZ=True,
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": database,
                "OPTIONS": {
                    "transaction_mode": "IMMEDIATE",
                    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
                },
            }
        },
    )
    django.setup()
    call_command("migrate", verbosity=0)
    site = get_asgi_application()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await (streams if scope["path"].startswith(root) else site)(scope, receive, send)

    return application
