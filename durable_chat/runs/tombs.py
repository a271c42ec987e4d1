"""The streams of deleted conversations: erased until the service confirms it."""

import logging

from django.db.models.functions import Now

from durable_chat import backends
from durable_chat.connections import in_database
from durable_chat.models import Tombstone
from durable_chat.streams.protocol.errors import StreamError, Unavailable

log = logging.getLogger(__name__)

AT_ONCE = 20  # streams that one call tries to erase


async def erase() -> int:
    """Erase what is due; how many streams that were. What the service does not confirm stays noted.

    Raises Unavailable while the service is away. One that it refuses to erase holds nobody else up.
    """
    erased = 0
    for path in await in_database(_due):
        try:
            await backends.get_streams().delete(path)
        except Unavailable:
            raise
        except StreamError as error:
            log.warning("the stream %s cannot be erased: %s", path, type(error).__name__)
            continue
        await in_database(Tombstone.objects.filter(path=path).update, erased_at=Now())
        erased += 1
    return erased


def _due() -> list[str]:
    due = Tombstone.objects.filter(erased_at=None).order_by("-created_at")
    return list(due.values_list("path", flat=True)[:AT_ONCE])
