"""WebSocket addresses: `URLRouter(websocket_urlpatterns)`; `durable_chat.asgi.mount` does it for you."""

import re
from typing import Any

from django.urls import re_path

from durable_chat.consumers import ConversationConsumer

_consumer: Any = ConversationConsumer.as_asgi()

WEBSOCKET = re.compile(r"^ws/chat/(?P<conversation_id>[^/]+)/?$")

websocket_urlpatterns: list[Any] = [
    re_path(WEBSOCKET.pattern, _consumer),
]
