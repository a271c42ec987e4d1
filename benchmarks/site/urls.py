"""The chat's addresses, and beside them an answer as a plain SSE response, and one by ``group_send``."""

import json
from collections.abc import AsyncIterator
from typing import Any, Final

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

from benchmarks.site.model import pieces

GROUP: Final = "readers"


def everybody(visitor: Any, conversation: Any, action: str) -> bool:
    """Nobody is asked who they are: the gate costs a query all the same."""
    return True


def chunk(text: str) -> str:
    """As the chat's own sockets send one."""
    told = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": text}
    return json.dumps({"id": "0000000000000001.0", "chunk": told})


@csrf_exempt
async def plain(request: HttpRequest) -> StreamingHttpResponse:
    """The answer, and nothing kept of it."""

    async def events() -> AsyncIterator[str]:
        async for piece in pieces(request.body.decode()):
            yield f"data: {chunk(piece)}\n\n"

    return StreamingHttpResponse(events(), content_type="text/event-stream")


@csrf_exempt
async def group(request: HttpRequest) -> HttpResponse:
    """The answer to all of a group, each piece as a message to each of them; answered at its end."""
    layer = get_channel_layer()
    async for piece in pieces(request.body.decode()):
        await layer.group_send(GROUP, {"type": "piece", "text": piece})
    return HttpResponse(status=204)


class GroupConsumer(AsyncWebsocketConsumer):
    """The relay of Channels' own tutorial."""

    groups = [GROUP]

    async def piece(self, event: dict[str, str]) -> None:
        await self.send(text_data=chunk(event["text"]))


urlpatterns = [path("plain", plain), path("group", group), path("", include("durable_chat.urls"))]
