"""`POST api/chat`: what is new goes into the stream, a run begins, the answer comes by the stream."""

from collections.abc import AsyncIterator, Mapping
from typing import ClassVar, Literal
from urllib.parse import urlencode

import orjson
from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import reverse

from durable_chat import conf, dialects
from durable_chat.connections import in_database
from durable_chat.exceptions import KeyRequired
from durable_chat.keys import ModelKey, own_keys
from durable_chat.models import Conversation
from durable_chat.permissions import visitor_of
from durable_chat.runs import launch, loop
from durable_chat.views.base import ConversationView, authorise, checked_id, empty_response, json_body
from durable_chat.views.conversations import create_conversation


def stream_url(conversation_id: str, run_id: str) -> str:
    """Where an AI SDK client reads one run. Without a host: an absolute URL is wrong behind proxies."""
    return f"{reverse('durable_chat:read')}?{urlencode({'id': conversation_id, 'run': run_id})}"


def pointer_headers(url: str) -> dict[str, str]:
    """What points a durable transport to its stream."""
    return {"Location": url, "Cache-Control": "no-store", "Access-Control-Expose-Headers": "Location"}


class SendView(ConversationView):
    """The send endpoint of both durable transports; the body says which client it is.

    `mode="immediate"` answers when the message is durable: 202 to TanStack, 201 with `Location` to the AI
    SDK. `mode="await"` answers 200 when the run has ended, for hosts that cannot work after a response;
    the AI SDK's status and `Location` still go out at once.
    """

    mode: Literal["immediate", "await"] = "immediate"
    wrong_method: ClassVar[str] = "POST here sends, DELETE stops; GET api/chat-stream?id=… reads."

    async def post(self, request: HttpRequest) -> HttpResponseBase:
        body = json_body(request)
        conversation_id = checked_id(request.GET.get("id") or body.get("id"))
        turn = dialects.detect(body).read(body)
        keys = _own_keys(request)
        if conf.get().create_on_send:
            await self._create(conversation_id)
        visitor = await in_database(visitor_of, request)
        conversation = await authorise(visitor, conversation_id, "send")
        run_id = await loop.call(launch.send, conversation, turn.signed(visitor.author), own_keys=keys)
        if turn.dialect == "ai-sdk":
            return self._pointer(stream_url(conversation_id, run_id), run_id)
        if self.mode == "await":
            await loop.call(launch.finish, run_id)
        return empty_response(200 if self.mode == "await" else 202)

    async def delete(self, request: HttpRequest) -> HttpResponse:
        """Stop the running answer of `?id=` or `{id}`: 202 when there was one, else 204."""
        return await self.stop(checked_id(request.GET.get("id") or json_body(request).get("id")))

    def _pointer(self, url: str, run_id: str) -> HttpResponseBase:
        headers = pointer_headers(url)
        if self.mode == "await":
            return StreamingHttpResponse(
                _final_offset(url, run_id), status=200, content_type="application/json", headers=headers
            )
        body = orjson.dumps({"streamUrl": url})
        return HttpResponse(body, status=201, content_type="application/json", headers=headers)

    async def _create(self, conversation_id: str) -> None:
        """With CREATE_ON_SEND: the sender's, unless the id is taken (by whomever: the gate decides)."""

        def create() -> None:
            if not Conversation.objects.filter(pk=conversation_id).exists():
                create_conversation(conversation_id, visitor_of(self.request, create=True))

        await sync_to_async(create)()


def _own_keys(request: HttpRequest) -> Mapping[str, ModelKey]:
    """What USER_KEYS lets through of the keys that the user sends along. Raises KeyRequired."""
    policy = conf.get().user_keys
    keys = {} if policy == "forbidden" else own_keys(request.headers)
    if policy == "required" and not keys:
        raise KeyRequired("Send your own model key along, as the header x-api-key or x-byok-<provider>.")
    return keys


async def _final_offset(url: str, run_id: str) -> AsyncIterator[bytes]:
    """The body of `{streamUrl, finalOffset}`, whose end comes with the run's."""
    yield orjson.dumps({"streamUrl": url})[:-1]  # sends the headers; the object is closed below
    run = await loop.call(launch.finish, run_id)
    yield b',"finalOffset":%s}' % orjson.dumps(run.end_offset if run else None)
