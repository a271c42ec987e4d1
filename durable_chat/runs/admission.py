"""What a send meets: a free conversation, a busy one, or the run that answers its message already."""

from dataclasses import dataclass

from django.db import transaction

from durable_chat.exceptions import Busy, Conflict, NotFound
from durable_chat.messages import Turn
from durable_chat.models import Conversation, Message, Run
from durable_chat.runs import journal
from durable_chat.runs.claim import Claim, begin
from durable_chat.runs.queue import dismiss, next_place
from durable_chat.runs.rows import is_due, lock, next_position


@dataclass(frozen=True, slots=True)
class Existing:
    """The run that already answers this message: waiting, active, or ended."""

    run_id: str


@dataclass(frozen=True, slots=True)
class Queued:
    """The run that will answer this message when its turn comes, and the run that is at work, if any."""

    run_id: str
    behind: str | None


class Ending(Exception):
    """The active run is writing its end; in a moment the conversation is free."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id


class Due(Exception):
    """Nobody writes the active run any more: recover it, then ask again."""


def admit(
    conversation_id: str,
    turn: Turn,
    *,
    holder: str,
    lease_seconds: float,
    when_busy: str,
    patient: bool = True,
) -> Claim | Queued | Existing:
    """Take the conversation for a new run, or a place in its line, or name the run that answers this message.

    Raises NotFound; Busy when another message is being answered and `when_busy` is "reject"; Conflict when
    the message's id is known with other content; Due, after which the caller recovers and asks again; and if
    it is `patient` Ending, after which it waits for a moment and asks again.
    """
    with transaction.atomic():
        conversation = lock(conversation_id)
        if conversation is None:
            raise NotFound("There is no such conversation.")
        active, waiting = _unfinished(conversation)
        known = conversation.messages.filter(client_id=turn.message.id).first()
        if known is not None and (existing := _existing(known, turn)):
            return existing
        if active is not None:
            _check_waiting(active, when_busy, patient=patient)
        asked = known or _add_user_message(conversation, turn)
        run = Run(conversation=conversation, message=asked, trigger=turn.trigger, options=dict(turn.options))
        if active is not None or (when_busy != "reject" and waiting):
            return _enqueue(run, active, when_busy)
        return begin(conversation, run, asked, holder=holder, lease_seconds=lease_seconds)


def _unfinished(conversation: Conversation) -> tuple[Run | None, list[Run]]:
    """The active run, and those that wait: who was withdrawn is dismissed. Raises Due."""
    runs = list(conversation.runs.filter(state__in=Run.UNFINISHED))
    active = next((run for run in runs if run.active), None)
    if active is not None and Run.objects.filter(is_due(), pk=active.pk).exists():
        raise Due
    waiting = [run for run in runs if not run.active]
    dismiss(run for run in waiting if run.stop_requested)
    return active, [run for run in waiting if not run.stop_requested]


def _check_waiting(active: Run, when_busy: str, *, patient: bool) -> None:
    """Raises what keeps another message from waiting for this run's end."""
    if patient and active.state == Run.State.ENDING:
        raise Ending(active.pk)
    if when_busy == "reject":
        raise Busy("An answer is being written: wait for it or stop it, then send again.", run_id=active.pk)


def _enqueue(run: Run, active: Run | None, when_busy: str) -> Queued:
    run.place = next_place(run.conversation)
    run.save(force_insert=True)
    journal.note_waiting(run, run.state)
    if active is not None and when_busy == "interrupt":
        active.stop()
    return Queued(run.pk, behind=active.pk if active is not None else None)


def _existing(known: Message, turn: Turn) -> Existing | None:
    """The rule of idempotence by the user message's id; None when a new run may begin."""
    if _differs(known, turn):
        raise Conflict(
            "This conversation has another message with this id: send the new text under a new id."
        )
    answers = known.answers.order_by("-created_at", "-pk")
    if turn.trigger != "submit":
        # Not one that is ending: its terminal chunk, which this client would wait for, may have gone by.
        answers = answers.filter(state__in=(Run.State.QUEUED, Run.State.ACCEPTED, Run.State.RUNNING))
    last = answers.first()
    return Existing(last.pk) if last is not None else None


def _differs(known: Message, turn: Turn) -> bool:
    """Who regenerates need not repeat what was asked, but cannot ask for an answer to an answer."""
    says_other = turn.trigger != "regenerate" and tuple(known.parts) != turn.message.parts
    return known.role != turn.message.role or says_other


def _add_user_message(conversation: Conversation, turn: Turn) -> Message:
    """Not visible before its echo is in the stream."""
    message = turn.message
    row: Message = conversation.messages.create(
        client_id=message.id,
        role=message.role,
        author_id=turn.author.id if turn.author else None,
        parts=list(message.parts),
        metadata=dict(message.metadata),
        position=next_position(conversation),
        visible=False,
    )
    return row
