"""A host that is not the demo: the chat below a prefix, and two of them on a page."""

from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import include, path

from durable_chat.models import Conversation, new_id
from durable_chat.permissions import visitor_of
from durable_chat.views.conversations import create_conversation

PAGE = """
<!DOCTYPE html>
<html lang="en">
  {% load durable_chat static %}
  <title>Two</title>
  <link rel="icon" href="{% static 'demo.svg' %}">
  {% for conversation in conversations %}{% durable_chat conversation %}{% endfor %}
</html>
"""


def two(request: HttpRequest) -> HttpResponse:
    visitor = visitor_of(request, create=True)
    while Conversation.objects.visible_to(visitor).count() < 2:
        create_conversation(new_id(), visitor, title=f"Chat {new_id()}")
    conversations = Conversation.objects.visible_to(visitor).order_by("pk")
    return HttpResponse(engines["django"].from_string(PAGE).render({"conversations": conversations}, request))


urlpatterns = [path("", two), path("help/chat/", include("durable_chat.urls"))]
