"""`GET api/chat/<id>/stream`: where the running answer is, if there is one."""

from django.http import HttpRequest, HttpResponse

from durable_chat.connections import in_database
from durable_chat.models import Run
from durable_chat.views.base import ConversationView, empty_response, json_response
from durable_chat.views.send import pointer_headers, stream_url


class ReconnectView(ConversationView):
    """204 when nothing is active; else 200 with `Location` and `{streamUrl}` (AI SDK, `resume: true`)."""

    wrong_method = "GET here finds the running answer; POST api/chat sends."

    async def get(self, request: HttpRequest, conversation_id: str) -> HttpResponse:
        conversation = await self.authorise(conversation_id, "read")
        active = Run.objects.active().filter(conversation=conversation).values_list("pk", flat=True)
        run_id = await in_database(active.first)
        if run_id is None:
            return empty_response(204)
        url = stream_url(conversation_id, run_id)
        return json_response({"streamUrl": url}, headers=pointer_headers(url))
