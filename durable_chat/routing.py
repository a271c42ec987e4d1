"""WebSocket addresses: `URLRouter(websocket_urlpatterns)`; `durable_chat.asgi.mount` does it for you."""

from typing import Any

from django.urls import re_path

from durable_chat.consumers import ConversationConsumer

_consumer: Any = ConversationConsumer.as_asgi()

websocket_urlpatterns: list[Any] = [
    re_path(r"^ws/chat/(?P<conversation_id>[^/]+)/?$", _consumer),
]
