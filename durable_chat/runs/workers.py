"""Whether answers are written by workers, and how one is asked."""

import logging
from importlib import import_module
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured

from durable_chat import conf
from durable_chat.connections import in_thread
from durable_chat.streams.embedded import conf as embedded

log = logging.getLogger(__name__)

# Backends that run a task where it is enqueued, within the request, or nowhere.
NO_WORKERS: Final = frozenset({"ImmediateBackend", "DummyBackend"})
SETTING: Final = f'{conf.NAME}["LAUNCHER"] is "tasks"'


def wanted() -> bool:
    """Whether the host has workers for answers."""
    return conf.get().launcher == "tasks"


async def ask(run_id: str) -> None:
    """Have a worker write the answer of an accepted run. What fails is logged: the sweep asks again."""
    try:
        await in_thread(_enqueue, run_id)
    except Exception as error:  # noqa: BLE001 - whatever a host's backend raises, which may quote its password
        log.error("no worker could be asked for run %s: %s", run_id, type(error).__name__)  # noqa: TRY400


def _enqueue(run_id: str) -> None:
    from durable_chat.runs.tasks import answer  # it wants a backend when it is imported

    answer.enqueue(run_id)


def framework() -> Any:
    """Django's tasks framework, or its backport. Raises ImproperlyConfigured."""
    for name in ("django.tasks", "django_tasks"):
        try:
            return import_module(name)
        except ModuleNotFoundError:
            continue
    raise ImproperlyConfigured(f'{SETTING}, which needs Django 6.0 or: pip install "durable-chat[tasks]".')


def check() -> None:
    """Raises ImproperlyConfigured when workers are wanted and could not be reached, or could not write."""
    if not wanted():
        return
    alias = conf.get().tasks.backend
    backends = framework().task_backends
    if alias not in backends.settings:
        raise ImproperlyConfigured(f"{SETTING}, but TASKS has no {alias!r}: add it, or name another BACKEND.")
    backend = backends[alias]
    if type(backend).__name__ in NO_WORKERS:
        raise ImproperlyConfigured(
            f"{SETTING}, but TASKS[{alias!r}] is {type(backend).__name__}, which has no workers: "
            "name a backend that has, such as django_tasks_db.DatabaseBackend."
        )
    for complaint in backend.check():
        raise ImproperlyConfigured(f"{SETTING}, but TASKS[{alias!r}] is incomplete: {complaint.msg}")
    try:
        from durable_chat.runs import tasks  # noqa: F401
    except Exception as error:
        raise ImproperlyConfigured(f"{SETTING}, but TASKS[{alias!r}] refuses its task: {error}") from error
    streams = embedded.load() if not conf.get().streams.remote else None
    if streams is not None and not streams.postgres and streams.sqlite_path is None:
        raise ImproperlyConfigured(f"{SETTING}, but the streams are in this process's memory alone.")
