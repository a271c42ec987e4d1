"""End the running answer and keep what there is of it; or take a message out of the line before its turn."""

from django.http import HttpRequest, HttpResponse

from durable_chat.connections import in_database
from durable_chat.exceptions import Conflict
from durable_chat.runs.queue import withdraw
from durable_chat.views.base import ConversationView, empty_response


class StopView(ConversationView):
    """`POST api/chat/<id>/stop`: 202 when an answer was running, else 204. Works from any process."""

    wrong_method = "POST here stops the running answer."

    async def post(self, request: HttpRequest, conversation_id: str) -> HttpResponse:
        return await self.stop(conversation_id)


class QueueView(ConversationView):
    """`DELETE api/chat/<id>/queue/<run or message id>`: 204, or 409 when no such message waits."""

    wrong_method = "DELETE here withdraws a message that waits for its turn."

    async def delete(self, request: HttpRequest, conversation_id: str, name: str) -> HttpResponse:
        await self.authorise(conversation_id, "send")
        if not await in_database(withdraw, conversation_id, name):
            raise Conflict("No such message waits here: it was withdrawn, or its turn has come.")
        return empty_response(204)
