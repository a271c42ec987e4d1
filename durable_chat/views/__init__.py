"""The class-based views. Each authorises through ConversationView and answers errors as JSON."""

from durable_chat.views.conversations import ConversationsView, OneConversationView
from durable_chat.views.members import MembersView, OneMemberView
from durable_chat.views.read import ReadView
from durable_chat.views.reconnect import ReconnectView
from durable_chat.views.send import SendView
from durable_chat.views.stop import QueueView, StopView

__all__ = [
    "ConversationsView",
    "MembersView",
    "OneConversationView",
    "OneMemberView",
    "QueueView",
    "ReadView",
    "ReconnectView",
    "SendView",
    "StopView",
]
