"""Messages that wait while their conversation is busy: durable, in order, begun by whoever finds it free."""

from collections.abc import Iterable

from django.db import transaction
from django.db.models import Max, Q
from django.db.models.functions import Now

from durable_chat.models import Conversation, Message, Run
from durable_chat.runs import journal
from durable_chat.runs.claim import Claim, begin
from durable_chat.runs.rows import lock, next_position


def next_place(conversation: Conversation) -> int:
    """Behind every run that ever waited in a locked conversation."""
    last = conversation.runs.aggregate(last=Max("place"))["last"]
    return 0 if last is None else last + 1


def next_in_line(conversation_id: str, *, holder: str, lease_seconds: float, hurried: bool) -> Claim | None:
    """Take the conversation for the first that waits in it; None when it is busy, or nobody waits.

    `hurried`: whoever is waited for is stopped, so each that begins ends at once but the last.
    """
    if not Run.objects.queued().filter(conversation=conversation_id).exists():
        return None  # without a write: this is asked after every run
    with transaction.atomic():
        conversation = lock(conversation_id)
        if conversation is None:
            return None
        line = conversation.runs.queued().order_by("place")
        dismiss(line.filter(Q(stop_requested=True) | Q(message=None)))
        run = line.select_related("message").first()
        asked = run.message if run is not None else None
        if run is None or asked is None or conversation.runs.active().exists():
            return None
        if not asked.visible:  # it is said now, after what was said while it waited
            asked.position = next_position(conversation)
            asked.save(update_fields=["position"])
        if hurried and line.exclude(pk=run.pk).exists():
            run.stop_requested = True
            run.save(update_fields=["stop_requested"])  # and never to False: somebody may ask meanwhile
        return begin(conversation, run, asked, holder=holder, lease_seconds=lease_seconds)


def withdraw(conversation_id: str, name: str) -> bool:
    """Take a waiting run, named by its id or its message's, out of the line; whether there was one."""
    if not name.isprintable():
        return False  # no name; and PostgreSQL refuses to look for a NUL
    with transaction.atomic():
        conversation = lock(conversation_id)
        if conversation is None:
            return False
        named = Q(pk=name) | Q(message__client_id=name)
        return dismiss(conversation.runs.queued().filter(named))


def dismiss(waiting: Iterable[Run]) -> bool:
    """End waiting runs of a locked conversation; what was never said is forgotten. Whether there were any."""
    runs = list(waiting)
    if not runs:
        return False
    names = [run.pk for run in runs]
    for run in runs:
        journal.note_waiting(run, Run.State.STOPPED)
    Message.objects.filter(answers__in=names, visible=False).delete()
    return bool(Run.objects.filter(pk__in=names).update(state=Run.State.STOPPED, ended_at=Now()))
