"""HTTP addresses: `path("", include("durable_chat.urls"))`.

Each answers with and without a trailing slash and never redirects: a redirect loses a POST's body.
"""

from django.urls import re_path

from durable_chat import views

app_name = "durable_chat"

urlpatterns = [
    re_path(r"^api/conversations/?$", views.ConversationsView.as_view(), name="conversations"),
    re_path(
        r"^api/conversations/(?P<conversation_id>[^/]+)/?$",
        views.OneConversationView.as_view(),
        name="conversation",
    ),
    re_path(
        r"^api/conversations/(?P<conversation_id>[^/]+)/members/?$",
        views.MembersView.as_view(),
        name="members",
    ),
    re_path(
        r"^api/conversations/(?P<conversation_id>[^/]+)/members/(?P<username>[^/]+)/?$",
        views.OneMemberView.as_view(),
        name="member",
    ),
    re_path(r"^api/chat/?$", views.SendView.as_view(), name="send"),
    re_path(r"^api/chat-stream/?$", views.ReadView.as_view(), name="read"),
    re_path(
        r"^api/chat/+(?P<conversation_id>[^/]+)/stream/?$", views.ReconnectView.as_view(), name="reconnect"
    ),
    re_path(r"^api/chat/+(?P<conversation_id>[^/]+)/stop/?$", views.StopView.as_view(), name="stop"),
    re_path(
        r"^api/chat/+(?P<conversation_id>[^/]+)/queue/(?P<name>[^/]+)/?$",
        views.QueueView.as_view(),
        name="queue",
    ),
]
