"""Conversation, Message, Run: who may see it, what is running, and a copy of what was said."""

import secrets
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models, transaction
from django.db.models import F, Q

from durable_chat.chunks import Decoder
from durable_chat.marks import mark_of
from durable_chat.messages import Author
from durable_chat.messages import Message as Turned
from durable_chat.streams.protocol.offsets import START

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: sorts as it counts


def new_id() -> str:
    """26 characters that sort by the millisecond they were made in; 80 random bits make them unguessable."""
    number = (time.time_ns() // 1_000_000 << 80) | secrets.randbits(80)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -5, -5))


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks: a signed-in user, an anonymous visitor known by a random id in the session, or nobody."""

    user_id: Any = None
    anonymous_id: str = ""
    name: str = field(default="", compare=False)  # what others in a conversation see of them

    @property
    def author(self) -> Author | None:
        """Who signs what this visitor writes; None for the anonymous."""
        return None if self.user_id is None else Author(self.user_id, self.name)


class ConversationQuerySet(models.QuerySet["Conversation"]):
    """Conversations of somebody."""

    def delete(self) -> tuple[int, dict[str, int]]:
        """As one by one: the conversation's lock before those of its runs, which would else be a deadlock."""
        named = list(self.values_list("pk", flat=True))
        with transaction.atomic(using=self.db):
            Conversation.objects.using(self.db).filter(pk__in=named).update(epoch=F("epoch") + 1)
            return super().delete()

    delete.queryset_only = True  # type: ignore[attr-defined]
    delete.alters_data = True  # type: ignore[attr-defined]

    def visible_to(self, visitor: Visitor) -> Self:
        """What this visitor owns or has been let into, newest first."""
        if visitor.user_id is not None:
            own = Conversation.objects.filter(owner_id=visitor.user_id).order_by().values("pk")
            shared = Member.objects.filter(user_id=visitor.user_id).order_by().values("conversation")
            # A union, because PostgreSQL reads the whole table for an OR of the two.
            return self.filter(pk__in=own.union(shared)).order_by("-updated_at")
        if visitor.anonymous_id:
            return self.filter(owner=None, visitor=visitor.anonymous_id).order_by("-updated_at")
        return self.none()


class Conversation(models.Model):
    """One chat. Its transcript is the durable stream at `stream_path`; the rows here are a copy of it.

    `epoch` is the generation of the stream's one writer (every claim and take-over raises it); `offset` is
    the position up to which the visible messages have been copied: messages == fold(stream[.. offset]).
    """

    id = models.CharField(
        primary_key=True,
        max_length=128,
        default=new_id,
        editable=False,
        validators=[RegexValidator(r"\A[A-Za-z0-9_-]{1,128}\Z")],
    )
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.CASCADE,
        null=True,
        blank=True,
        related_name="durable_conversations",
        help_text="Empty for a conversation of an anonymous visitor.",
    )
    visitor = models.CharField(
        max_length=64,
        blank=True,
        db_index=True,
        help_text="An anonymous owner's random id, kept in their session.",
    )
    members = models.ManyToManyField(
        settings.AUTH_USER_MODEL, through="Member", blank=True, related_name="shared_durable_conversations"
    )
    title = models.CharField(max_length=200, blank=True)
    metadata = models.JSONField(default=dict, blank=True, decoder=Decoder)
    stream_path = models.CharField(max_length=200, unique=True, editable=False)
    epoch = models.BigIntegerField(default=0, editable=False)
    offset = models.CharField(max_length=256, default=START, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects: ClassVar[Any] = ConversationQuerySet.as_manager()

    class Meta:
        ordering = ["-updated_at"]
        indexes = [models.Index(fields=["owner", "-updated_at"], name="dchat_conv_owner_recent")]

    def __str__(self) -> str:
        return self.title or self.id

    # What runs write, each in a transaction of its own: a row that somebody loaded earlier must not undo it.
    RUNS_OWN = frozenset({"epoch", "offset", "stream_path"})

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self._state.adding:
            self.name_stream()
        elif kwargs.get("update_fields") is None and not args:
            names = {field.name for field in self._meta.concrete_fields if not field.primary_key}
            kwargs["update_fields"] = names - self.RUNS_OWN
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Erase the rows, and after the commit the stream."""
        with transaction.atomic():
            # A write first: a send that is under way ends before this, or finds nothing to claim.
            Conversation.objects.filter(pk=self.pk).update(epoch=F("epoch") + 1)
            return super().delete(*args, **kwargs)

    def name_stream(self) -> None:
        """`chat-<id>`; where such a stream was erased, whose writer may yet live, a name of its own."""
        if not self.stream_path:
            buried = Tombstone.objects.filter(path=self._first_path).exists()
            self.stream_path = self.another_path() if buried else self._first_path

    def another_path(self) -> str:
        """A name that no stream has had."""
        return f"{self._first_path}-{new_id()}"

    @property
    def mark(self) -> str:
        """What readers' offsets begin with (see `marks`)."""
        return mark_of(self.pk, self.stream_path)

    @property
    def _first_path(self) -> str:
        return f"chat-{self.id}"


class Member(models.Model):
    """A user whom the owner has let into a conversation."""

    class Role(models.TextChoices):
        READER = "reader"
        WRITER = "writer"

    conversation = models.ForeignKey(Conversation, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="durable_memberships")
    role = models.CharField(max_length=16, choices=Role.choices, default=Role.READER)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["created_at", "pk"]
        constraints = [
            models.UniqueConstraint(fields=["conversation", "user"], name="dchat_member_once"),
        ]

    def __str__(self) -> str:
        return f"{self.user} ({self.role})"


class MessageQuerySet(models.QuerySet["Message"]):
    """Messages of a conversation."""

    def visible(self) -> Self:
        """What the transcript shows: not what a regeneration replaced, nor what is not yet accepted."""
        return self.filter(visible=True)

    def placed(self) -> list[tuple[int, Turned]]:
        """Those of one conversation in order: their positions, and themselves as the pure half knows them."""
        columns = ("position", "client_id", "role", "parts", "metadata", "created_at")
        rows = self.order_by("position").values_list(*columns)
        return [(at, Turned(id, role, tuple(parts), more, when)) for at, id, role, parts, more, when in rows]


class Message(models.Model):
    """One turn of a conversation, made of parts in TanStack's `UIMessage` shape."""

    conversation = models.ForeignKey(Conversation, models.CASCADE, related_name="messages")
    client_id = models.CharField("id", max_length=128, help_text="The id that clients know it by.")
    role = models.CharField(
        max_length=16, choices=[(role, role) for role in ("user", "assistant", "system", "tool")]
    )
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="durable_messages",
        help_text="Who wrote it; empty for answers and for anonymous visitors.",
    )
    parts = models.JSONField(default=list, decoder=Decoder)
    metadata = models.JSONField(default=dict, blank=True, decoder=Decoder)
    position = models.PositiveIntegerField()
    run = models.ForeignKey("Run", models.SET_NULL, null=True, blank=True, related_name="messages")
    visible = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[Any] = MessageQuerySet.as_manager()

    class Meta:
        ordering = ["conversation", "position"]
        constraints = [
            models.UniqueConstraint(fields=["conversation", "client_id"], name="dchat_message_once"),
            models.UniqueConstraint(fields=["conversation", "position"], name="dchat_message_position"),
        ]

    def __str__(self) -> str:
        return f"{self.role} {self.client_id}"

    def value(self) -> Turned:
        """The row as the pure half knows it."""
        return Turned(
            id=self.client_id,
            role=self.role,
            parts=tuple(self.parts),
            metadata=self.metadata,
            created_at=self.created_at,
        )


class RunQuerySet(models.QuerySet["Run"]):
    """Runs by their state."""

    def active(self) -> Self:
        """Those that hold their conversation: one each at most."""
        return self.filter(state__in=Run.ACTIVE)

    def queued(self) -> Self:
        """Those that wait for their conversation."""
        return self.filter(state=Run.State.QUEUED)


class Run(models.Model):
    """One answer: waiting, being written, or written.

    The lease is in the database's clock; whoever finds it expired recovers. A run that waits, for its turn
    or for a worker, holds none.
    """

    class State(models.TextChoices):
        QUEUED = "queued", "queued (waits for its turn behind another run)"
        ACCEPTED = "accepted", "accepted (readers know of it; it waits for a worker)"
        RUNNING = "running"
        ENDING = "ending", "ending (the terminal chunk is being written)"
        DONE = "done"
        FAILED = "failed"
        STOPPED = "stopped"
        INTERRUPTED = "interrupted"

    ACTIVE = (State.ACCEPTED, State.RUNNING, State.ENDING)
    UNFINISHED = (State.QUEUED, *ACTIVE)

    LOST = "lost"  # the offsets of an ended run whose log was lost with its stream

    id = models.CharField(primary_key=True, max_length=26, default=new_id, editable=False)
    conversation = models.ForeignKey(Conversation, models.CASCADE, related_name="runs")
    state = models.CharField(max_length=16, choices=State.choices, default=State.QUEUED)
    trigger = models.CharField(max_length=16)
    message = models.ForeignKey(
        Message, models.SET_NULL, null=True, related_name="answers", help_text="The user message it answers."
    )
    options = models.JSONField(
        default=dict,
        blank=True,
        decoder=Decoder,
        help_text="What the send asked for beside its message; never a key.",
    )
    place = models.PositiveIntegerField(
        null=True, blank=True, help_text="Its place in the conversation's line, if it ever had to wait in it."
    )
    epoch = models.BigIntegerField(default=0)
    holder = models.CharField(max_length=128, blank=True, help_text="The process that writes it.")
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    asked_at = models.DateTimeField(
        null=True, blank=True, help_text="When a worker was last asked to write it."
    )
    stop_requested = models.BooleanField(default=False)
    start_offset = models.CharField(max_length=256, blank=True)
    end_offset = models.CharField(max_length=256, blank=True)
    error = models.TextField(blank=True, help_text="For the host's eyes; readers get a text without details.")
    notice = models.TextField(blank=True, help_text="What readers were told when it did not end well.")
    usage = models.JSONField(null=True, blank=True, decoder=Decoder)
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar[Any] = RunQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["conversation"],
                condition=Q(state__in=("accepted", "running", "ending")),
                name="dchat_one_active_run",
            ),
        ]
        indexes = [models.Index(fields=["state", "lease_expires_at"], name="dchat_run_due")]

    def __str__(self) -> str:
        return f"{self.id} ({self.state})"

    @property
    def active(self) -> bool:
        return self.state in self.ACTIVE

    @property
    def unfinished(self) -> bool:
        return self.state in self.UNFINISHED

    def stop(self) -> None:
        """Ask for its end, wherever it is: within about a second it is stopped, or no longer waits.

        Only sets the flag, so it may be called anywhere; what has ended stays as it is.
        """
        Run.objects.filter(pk=self.pk, state__in=self.UNFINISHED).update(stop_requested=True)


class Tombstone(models.Model):
    """A deleted conversation's stream: to be erased until the service confirms it, never named again."""

    path = models.CharField(primary_key=True, max_length=200)
    created_at = models.DateTimeField(auto_now_add=True)
    erased_at = models.DateTimeField(null=True, db_index=True)

    def __str__(self) -> str:
        return self.path
