"""A process that sends what it is told: to `<conversation> <message id>` it says `run <id>`, `busy <id>`."""

import sys

import django

django.setup()

from durable_chat.exceptions import Busy  # noqa: E402
from durable_chat.messages import Message, Turn  # noqa: E402
from durable_chat.models import Conversation  # noqa: E402
from durable_chat.runs import launch, loop  # noqa: E402

PARTS = ({"type": "text", "content": "words=1 delay=60000"},)  # answered when the test is long over


def sent(conversation_id: str, id: str) -> str:
    turn = Turn(Message(id=id, role="user", parts=PARTS), "send", {}, "tanstack")
    try:
        return (
            f"run {loop.block(launch.send, Conversation.objects.get(pk=conversation_id), turn, timeout=60)}"
        )
    except Busy as busy:
        return f"busy {busy.run_id}"


print("ready", flush=True)
for line in sys.stdin:
    print(sent(*line.split()), flush=True)
