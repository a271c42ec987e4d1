"""The streams of deleted conversations: erased until the service confirms it."""

from django.db.models.functions import Now

from durable_chat import backends
from durable_chat.connections import in_database
from durable_chat.models import Tombstone

AT_ONCE = 20  # streams that one call tries to erase


async def erase() -> int:
    """Erase what is due; how many streams that were. Raises StreamError: the rest stays noted."""
    due = await in_database(_due)
    for path in due:
        await backends.get_streams().delete(path)
        await in_database(Tombstone.objects.filter(path=path).update, erased_at=Now())
    return len(due)


def _due() -> list[str]:
    due = Tombstone.objects.filter(erased_at=None).order_by("-created_at")
    return list(due.values_list("path", flat=True)[:AT_ONCE])
