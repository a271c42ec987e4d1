"""`POST api/chat/<id>/stop`: end the running answer and keep what there is of it."""

from django.http import HttpRequest, HttpResponse

from durable_chat.runs import launch, loop
from durable_chat.views.base import ConversationView, empty_response


class StopView(ConversationView):
    """202 when an answer was running, 204 when none was. Works from any process."""

    wrong_method = "POST here stops the running answer."

    async def post(self, request: HttpRequest, conversation_id: str) -> HttpResponse:
        await self.authorise(conversation_id, "stop")
        stopped = await loop.call(launch.stop, conversation_id)
        return empty_response(202 if stopped else 204)
