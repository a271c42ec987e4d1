"""Serves the site on a free port, whose URL it prints, its conversations in place."""

import asyncio
import os
import sys
from typing import Any

import django
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.core.management import call_command

from benchmarks.serve import serve

ANSWER = "and then the next few words " * 100


def application() -> Any:
    from django.urls import path

    from benchmarks.site.urls import GroupConsumer
    from durable_chat.asgi import mount

    sockets = URLRouter([path("group", GroupConsumer.as_asgi())])  # type: ignore[arg-type]
    return mount(ProtocolTypeRouter({"http": get_asgi_application(), "websocket": sockets}))


def fill(name: str, *, messages: int, chunks: int) -> None:
    """A conversation of that many messages, always the same ones, whose answers took ``chunks`` in all."""
    from durable_chat.models import Conversation, Message, Run

    conversation = Conversation.objects.create(pk=name, visitor="everybody")
    step = len(ANSWER) * messages // 2 // chunks
    texts = [[ANSWER[at : at + step] for at in range(0, len(ANSWER), step)]] * (messages // 2)
    rows: list[Message] = []
    for number, pieces in enumerate(texts):
        for role, text in (("user", "And then?"), ("assistant", "".join(pieces))):
            id, part = f"{role}-{number}", {"type": "text", "content": text}
            rows.append(
                Message(conversation=conversation, client_id=id, role=role, parts=[part], position=len(rows))
            )
    Message.objects.bulk_create(rows)
    Run.objects.bulk_create(
        Run(conversation=conversation, message=asked, state=Run.State.DONE, trigger="send", epoch=1)
        for asked in rows[::2]
    )
    conversation.offset = asyncio.run(_write(conversation.stream_path, texts))
    conversation.save()


async def _write(path: str, texts: list[list[str]]) -> str:
    from durable_chat import backends
    from durable_chat.chunks import text_content, text_end, text_start

    streams, offset = backends.get_streams(), ""
    for number, pieces in enumerate(texts):
        asked, answered = f"user-{number}", f"assistant-{number}"
        echo = [text_start(asked, role="user"), text_content(asked, "And then?"), text_end(asked)]
        said = [text_content(answered, piece) for piece in pieces]
        chunks = [*echo, text_start(answered), *said, text_end(answered)]
        offset = (await streams.append(path, chunks)).offset or offset
    return offset


def main() -> None:
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "benchmarks.site.settings",
        "DATABASE_URL": f"sqlite:///{sys.argv[1]}",
        "SECRET_KEY": "for-measuring-only",
    }
    django.setup()
    call_command("migrate", verbosity=0)
    from durable_chat.models import Conversation

    Conversation.objects.create(pk="talk", visitor="everybody")
    if "--long" in sys.argv:
        fill("long", messages=2_000, chunks=100_000)
        fill("same", messages=2_000, chunks=4_000)
    serve(application())


if __name__ == "__main__":
    main()
