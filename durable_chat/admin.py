"""Conversations, their messages and runs in the admin: facts to look at, a title to correct."""

from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db.models import Count, Model, Q, QuerySet
from django.http import HttpRequest

from durable_chat.models import Conversation, Member, Message, Run


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

    list_display = ["name", "owner", "message_count", "running", "created_at", "updated_at"]
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
        "stream_path",
        "epoch",
        "offset",
        "created_at",
        "updated_at",
    ]
    readonly_fields = ["id", "visitor", "stream_path", "epoch", "offset", "created_at", "updated_at"]
    inlines = [MemberInline, MessageInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Conversation]:
        shown = Count("messages", filter=Q(messages__visible=True), distinct=True)
        active = Count("runs", filter=Q(runs__state__in=Run.ACTIVE), distinct=True)
        counted: QuerySet[Conversation] = super().get_queryset(request).annotate(shown=shown, active=active)
        return counted

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # begun by people who chat

    @admin.display(description="conversation", ordering="title")
    def name(self, conversation: Conversation) -> str:
        return str(conversation)

    @admin.display(description="messages", ordering="shown")
    def message_count(self, conversation: Any) -> int:
        return int(conversation.shown)

    @admin.display(description="running", boolean=True, ordering="active")
    def running(self, conversation: Any) -> bool:
        return bool(conversation.active)


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
    """One answer being written, or written: its state, holder, lease and what went wrong."""

    list_display = [
        "id",
        "conversation",
        "state",
        "trigger",
        "epoch",
        "holder",
        "lease_expires_at",
        "created_at",
        "ended_at",
    ]
    list_filter = ["state", "trigger", "created_at"]
    search_fields = ["id", "conversation__id", "conversation__title", "holder", "error"]
    list_select_related = ["conversation"]
    date_hierarchy = "created_at"
