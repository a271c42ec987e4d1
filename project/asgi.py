"""The demo's ASGI application: `uvicorn project.asgi:application`, or Daphne behind `manage.py runserver`."""

import os

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

from durable_chat.asgi import mount

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

application = mount(ASGIStaticFilesHandler(get_asgi_application()))
