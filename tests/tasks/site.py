"""The demo with workers: TASKS_ON says where their tasks are kept."""

import os
from importlib.util import find_spec

from project.settings import *  # noqa: F403
from project.settings import DURABLE_CHAT as CHAT
from project.settings import INSTALLED_APPS as APPS

FRAMEWORK = "django.tasks" if find_spec("django.tasks") else "django_tasks"
BACKENDS = {
    "database": "django_tasks_db.DatabaseBackend",
    "redis": "django_tasks_rq.RQBackend",
    "immediate": f"{FRAMEWORK}.backends.immediate.ImmediateBackend",
    "dummy": f"{FRAMEWORK}.backends.dummy.DummyBackend",
    "nowhere": "no.such.Backend",
}
NEEDED = {"database": ["django_tasks_db"], "redis": ["django_rq"]}
if os.environ.get("TASKS_APP") == "missing":
    NEEDED = {}

_on = os.environ["TASKS_ON"]
_queue = os.environ["TASKS_QUEUE"]

INSTALLED_APPS = [*APPS, *NEEDED.get(_on, [])]
TASKS = {"default": {"BACKEND": BACKENDS[_on], "QUEUES": [os.environ.get("TASKS_KNOWN_QUEUE", _queue)]}}
RQ_QUEUES = {_queue: {"URL": os.environ.get("TEST_REDIS_URL", ""), "DEFAULT_TIMEOUT": 600}}
DURABLE_CHAT = CHAT | {"LAUNCHER": "tasks"}
DURABLE_STREAMS = {"STORE": os.environ.get("STREAMS_STORE", "auto")}
