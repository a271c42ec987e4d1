"""Under WSGI every HTTP endpoint works; a live read holds a thread for as long as it lasts."""

from collections.abc import Iterator

import orjson
from django.test import Client

from durable_chat.streams.client.sse import Decoder
from durable_chat.testing import drain
from tests.conftest import words


def post(client: Client, path: str, body: object) -> object:
    return client.post(path, body, content_type="application/json")


def chunks(pieces: Iterator[bytes]) -> Iterator[dict[str, object]]:
    decoder = Decoder()
    for piece in pieces:
        for event in decoder.feed(piece):
            if event.name == "data":
                yield from orjson.loads(event.data)


def test_the_whole_path(site: None) -> None:
    client = Client()
    assert post(client, "/api/conversations", {"id": "wsgi"}).status_code == 201
    live = client.get("/api/chat-stream?id=wsgi&offset=-1&live=sse")
    read = chunks(live.streaming_content)
    message = {"id": "m-1", "role": "user", "parts": [{"type": "text", "content": "words=5 delay=5"}]}
    assert post(client, "/api/chat?id=wsgi", {"messages": [message]}).status_code == 202
    seen = [next(read)]
    while seen[-1]["type"] != "RUN_FINISHED":
        seen.append(next(read))
    read.close()
    live.close()
    drain()
    assert client.get("/api/chat-stream?id=wsgi&offset=-1").json() == seen
    hydrated = client.get("/api/conversations/wsgi").json()
    assert [part["content"] for m in hydrated["messages"] for part in m["parts"]] == [
        *("words=5 delay=5", words(5))
    ]
    assert client.get("/api/chat/wsgi/stream").status_code == 204
    assert client.delete("/api/conversations/wsgi").status_code == 204
