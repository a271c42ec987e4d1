"""TanStack AI: its chunks are the stream's own, its UIMessage is the stored shape."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from durable_chat.chunks import Chunk, is_terminal
from durable_chat.dialects.base import (
    Item,
    newest_user_message,
    options,
    text_field,
    unknown_part,
    user_message,
)
from durable_chat.exceptions import BadInput
from durable_chat.messages import Message, Part, Turn

MEDIA: Final = frozenset({"image", "audio", "video", "document"})


class TanStack:
    """``{"messages": [...], "data": {...}}``: the whole history, and never a word on why it is sent."""

    name: Final = "tanstack"

    def read(self, body: Mapping[str, Any]) -> Turn:
        newest = newest_user_message(body)
        message = user_message(newest, _parts(newest), read=_part)
        return Turn(message, "send", options(body.get("data")), self.name)

    def messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        return [message.as_json() for message in messages]

    def transcoder(self, run_id: str) -> "Identity":
        return Identity(run_id)


class Identity:
    """Every chunk as it is, until the run's last."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self.done = False

    def feed(self, chunk: Chunk) -> list[Item]:
        if self.done:
            return []
        self.done = is_terminal(chunk, self._run_id)
        return [chunk]


def _parts(raw: Mapping[str, Any]) -> Any:
    """A UIMessage has parts; a ModelMessage has content, a text or a list of parts."""
    if "parts" in raw:
        return raw["parts"]
    content = raw.get("content")
    return [{"type": "text", "content": content}] if isinstance(content, str) else content


def _part(part: Mapping[str, Any]) -> Part:
    kind = part.get("type")
    if kind == "text":
        return {"type": "text", "content": text_field(part, "content")} | _metadata(part)
    if not isinstance(kind, str) or kind not in MEDIA:
        raise unknown_part(part, known="text, image, audio, video and document")
    return {"type": kind, "source": _source(kind, part.get("source"))} | _metadata(part)


def _source(kind: str, source: Any) -> dict[str, str]:
    if not isinstance(source, Mapping) or source.get("type") not in ("data", "url"):
        raise BadInput(f'A part of type "{kind}" needs a source of type "data" or "url".')
    value, media_type = source.get("value"), source.get("mimeType")
    if not isinstance(value, str) or not value:
        raise BadInput(f'The source of a part of type "{kind}" needs "value", a text.')
    if not isinstance(media_type, str if source["type"] == "data" else str | None):
        raise BadInput(f'The source of a part of type "{kind}" needs "mimeType", a text.')
    return {"type": source["type"], "value": value} | ({"mimeType": media_type} if media_type else {})


def _metadata(part: Mapping[str, Any]) -> Part:
    metadata = part.get("metadata")
    return {"metadata": dict(metadata)} if isinstance(metadata, Mapping) else {}
