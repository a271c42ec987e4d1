"""Conversations, their messages and runs in the admin: facts to look at, a title to correct."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.db.models import Count, DurationField, ExpressionWrapper, F, Model, Q, QuerySet
from django.db.models.functions import Now
from django.forms.widgets import Script
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from durable_chat.exceptions import Unavailable
from durable_chat.models import Conversation, Member, Message, Run
from durable_chat.runs import launch, loop

T = TypeVar("T")

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 10.0  # what one run of an action may take


class FactsAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic in the stubs alone
    """Read-only: what is written here is a copy of the stream, and is changed by runs alone."""

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return [field.name for field in self.model._meta.concrete_fields]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """They go with their conversation, or with its owner, and never by themselves."""
        match = request.resolver_match
        by_itself = f"{self.opts.app_label}_{self.opts.model_name}_"
        own_page = match is not None and str(match.url_name).startswith(by_itself)
        return not own_page and super().has_delete_permission(request, obj)


class MessageInline(admin.TabularInline):  # type: ignore[type-arg]  # generic in the stubs alone
    """The transcript, as it stands in the rows."""

    model = Message
    fields = ["position", "role", "author", "said", "visible", "run", "created_at"]
    readonly_fields = ["position", "role", "author", "said", "visible", "run", "created_at"]
    ordering = ["position"]
    extra = 0
    can_delete = False
    show_change_link = True

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @admin.display(description="text")
    def said(self, message: Message) -> str:
        return message.value().text()


class MemberInline(admin.TabularInline):  # type: ignore[type-arg]  # generic in the stubs alone
    """Who else may read it, or write in it."""

    model = Member
    fields = ["user", "role", "created_at"]
    readonly_fields = ["created_at"]
    raw_id_fields = ["user"]
    extra = 0


@admin.register(Conversation)
class ConversationAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic in the stubs alone
    """Who it belongs to, what was said, where its stream is."""

    list_display = ["name", "owner", "message_count", "running", "runs", "created_at", "updated_at"]
    list_filter = ["created_at", "updated_at", ("owner", admin.EmptyFieldListFilter), "runs__state"]
    search_fields = ["id", "title", f"owner__{get_user_model().USERNAME_FIELD}", "visitor", "messages__parts"]
    date_hierarchy = "created_at"
    list_select_related = ["owner"]
    raw_id_fields = ["owner"]
    fields = [
        "id",
        "title",
        "owner",
        "visitor",
        "metadata",
        "runs",
        "stream_path",
        "epoch",
        "offset",
        "created_at",
        "updated_at",
    ]
    readonly_fields = ["id", "visitor", "runs", "stream_path", "epoch", "offset", "created_at", "updated_at"]
    inlines = [MemberInline, MessageInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Conversation]:
        shown = Count("messages", filter=Q(messages__visible=True), distinct=True)
        runs = Count("runs", distinct=True)
        active = Count("runs", filter=Q(runs__state__in=Run.ACTIVE), distinct=True)
        counted: QuerySet[Conversation] = super().get_queryset(request)
        return counted.annotate(shown=shown, active=active, run_count=runs)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # begun by people who chat

    @admin.display(description="conversation", ordering="title")
    def name(self, conversation: Conversation) -> str:
        return str(conversation)

    @admin.display(description="messages", ordering="shown")
    def message_count(self, conversation: Any) -> int:
        return int(conversation.shown)

    @admin.display(description="running", empty_value="-", ordering="active")
    def running(self, conversation: Any) -> str | None:
        return "yes" if conversation.active else None  # Django's cross for False looks like a failure

    @admin.display(description="runs", ordering="run_count")
    def runs(self, conversation: Any) -> str:
        listed = reverse("admin:durable_chat_run_changelist", current_app=self.admin_site.name)
        address = f"{listed}?conversation__id__exact={conversation.pk}"
        return format_html('<a href="{}">{}</a>', address, conversation.run_count)


@admin.register(Message)
class MessageAdmin(FactsAdmin):
    """One turn, with all its parts."""

    list_display = ["client_id", "conversation", "role", "author", "excerpt", "visible", "created_at"]
    list_filter = ["role", "visible", "created_at"]
    search_fields = ["client_id", "conversation__id", "conversation__title", "parts"]
    list_select_related = ["conversation", "author"]
    date_hierarchy = "created_at"

    @admin.display(description="text")
    def excerpt(self, message: Message) -> str:
        text = message.value().text()
        return text if len(text) <= 80 else f"{text[:79]}…"


@admin.register(Run)
class RunAdmin(FactsAdmin):
    """One answer: its state, holder, lease and what went wrong. The list renews itself."""

    list_display = ["id", "conversation", "state", "holder", "lease", "epoch", "created_at", "ended_at"]
    list_filter = ["state", "trigger", "created_at"]
    search_fields = ["id", "conversation__id", "conversation__title", "holder", "error"]
    list_select_related = ["conversation"]
    date_hierarchy = "created_at"
    actions = ["stop", "recover"]

    class Media:
        js = [Script("durable_chat/admin.js", type="module")]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Run]:
        left = ExpressionWrapper(F("lease_expires_at") - Now(), output_field=DurationField())
        runs: QuerySet[Run] = super().get_queryset(request).annotate(left=left)
        return runs

    @admin.display(description="lease", ordering="lease_expires_at")
    def lease(self, run: Any) -> str | None:
        """In the database's clock, as whoever recovers runs reads it."""
        if run.left is None:
            return None
        seconds = run.left.total_seconds()
        return f"{seconds:.0f} s left" if seconds >= 0 else f"expired {-seconds:.0f} s ago"

    @admin.action(description="Stop the selected runs", permissions=["change"])
    def stop(self, request: HttpRequest, runs: "QuerySet[Run]") -> None:
        """Here at once, in another process within a second; what there is of an answer is kept."""
        outcomes = self._each(request, runs, lambda run: launch.stop(run.conversation_id, run.pk))
        self._tell(request, outcomes.count(True), "asked to stop", messages.SUCCESS)
        self._tell(request, outcomes.count(False), "over already", messages.INFO)

    @admin.action(description="Recover the selected runs whose process has died", permissions=["change"])
    def recover(self, request: HttpRequest, runs: "QuerySet[Run]") -> None:
        """As whoever looks next would; a run whose lease holds is left alone."""
        outcomes = self._each(request, runs, lambda run: launch.tend(run.conversation_id))
        named = set(runs.values_list("pk", flat=True))
        recovered = len(named & {outcome.recovered for outcome in outcomes})
        self._tell(request, recovered, "recovered", messages.SUCCESS)
        self._tell(
            request, len(outcomes) - recovered, "left alone: nothing there is to recover", messages.INFO
        )

    def _each(
        self, request: HttpRequest, runs: "QuerySet[Run]", attend: Callable[[Run], Coroutine[Any, Any, T]]
    ) -> list[T]:
        """What came of each run that could be attended to."""
        outcomes = []
        for run in runs:
            try:
                outcomes.append(loop.block(attend, run, timeout=PATIENCE_SECONDS))
            except (Unavailable, TimeoutError) as error:
                reason = str(error) or "it takes long, and goes on."
                self.message_user(request, f"Run {run.pk}: {reason}", messages.ERROR)
            except Exception:
                log.exception("run %s cannot be attended to", run.pk)
                self.message_user(
                    request, f"Run {run.pk}: the server's log says what failed.", messages.ERROR
                )
        return outcomes

    def _tell(self, request: HttpRequest, count: int, what: str, level: int) -> None:
        if count:
            verb = "run was" if count == 1 else "runs were"
            self.message_user(request, f"{count} {verb} {what}.", level)
