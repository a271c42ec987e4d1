"""The Vercel AI SDK: its UIMessage in and out."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from durable_chat.dialects.ai_sdk_run import RunTranscoder
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
from durable_chat.messages.drafts import complaint, decoded

_TRIGGERS: Final[Mapping[str, Literal["submit", "regenerate"]]] = {
    "submit-message": "submit",
    "regenerate-message": "regenerate",
}
_ENVELOPE: Final = frozenset({"id", "messages", "trigger", "messageId"})
_MEDIA: Final = frozenset({"image", "audio", "video"})


class AISDK:
    """``{"id", "messages", "trigger", "messageId", ...}``, where what the host added lies beside the rest."""

    name: Final = "ai-sdk"

    def read(self, body: Mapping[str, Any]) -> Turn:
        newest = newest_user_message(body)
        trigger = body.get("trigger")
        if not isinstance(trigger, str) or trigger not in _TRIGGERS:
            raise BadInput('"trigger" must be "submit-message" or "regenerate-message".')
        message = user_message(newest, newest.get("parts"), read=_read_part)
        beside = {key: value for key, value in body.items() if key not in _ENVELOPE}
        return Turn(message, _TRIGGERS[trigger], options(beside), self.name)

    def messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        return [_ui_message(message) for message in messages]

    def transcoder(self, run_id: str) -> RunTranscoder:
        return RunTranscoder(run_id)


# --- the user's message in ---------------------------------------------------------------------------------


def _read_part(part: Mapping[str, Any]) -> Part:
    kind = part.get("type")
    if kind == "text":
        return {"type": "text", "content": text_field(part, "text")}
    if kind != "file":
        raise unknown_part(part, known="text and file")
    url, media_type = text_field(part, "url"), text_field(part, "mediaType")
    if not url:
        raise BadInput('A part of type "file" needs "url", a text.')
    family = media_type.partition("/")[0]
    read: Part = {"type": family if family in _MEDIA else "document", "source": _source(url, media_type)}
    name = part.get("filename")
    return read | ({"metadata": {"filename": name}} if isinstance(name, str) and name else {})


def _source(url: str, media_type: str) -> dict[str, str]:
    """A data URL is taken apart: what is stored holds the bytes, not a URL of them."""
    head, comma, data = url.partition(",")
    if comma and head.lower().startswith("data:") and head.lower().endswith(";base64"):
        return {"type": "data", "value": data, "mimeType": media_type}
    return {"type": "url", "value": url, "mimeType": media_type}


# --- messages out ------------------------------------------------------------------------------------------


def _ui_message(message: Message) -> dict[str, Any]:
    role = message.role if message.role in ("user", "system") else "assistant"
    parts = _in_steps(message.parts) if role == "assistant" else _translated(message.parts)
    metadata = {key: value for key, value in message.metadata.items() if key != "tanstack"}
    ui = {"id": message.id, "role": role, "parts": parts}
    return ui | ({"metadata": metadata} if metadata else {})


def _translated(parts: Sequence[Part]) -> list[Item]:
    return [item for part in parts if (item := _item(part)) is not None]


def _in_steps(parts: Sequence[Part]) -> list[Item]:
    """An answer's parts; after a tool's result the model is called anew, which begins another step."""
    items: list[Item] = []
    step_begins = True
    for part in parts:
        if part.get("type") == "tool-result":  # told by the call's own part
            step_begins = True
        elif (item := _item(part)) is not None:
            items += [{"type": "step-start"}, item] if step_begins else [item]
            step_begins = False
    return items


def _item(part: Part) -> Item | None:
    """The AI SDK's part for one of ours; None for what it does not know."""
    kind = part.get("type")
    if kind == "text":
        return {"type": "text", "text": part.get("content", ""), "state": "done"}
    if kind == "thinking":
        return {"type": "reasoning", "text": part.get("content", ""), "state": "done"}
    if kind == "tool-call":
        return _tool(part)
    if kind in (*_MEDIA, "document") and isinstance(part.get("source"), dict):
        return _file(part, part["source"])
    return None


def _tool(call: Part) -> Item:
    arguments = call.get("arguments") or "{}"
    tool: Item = {"type": f"tool-{call.get('name')}", "toolCallId": call.get("id")}
    tool["input"] = call["input"] if "input" in call else decoded(arguments, otherwise=arguments)
    state = call.get("state")
    if state == "error":
        return tool | {"state": "output-error", "errorText": complaint(call.get("output"))}
    if "output" in call:
        return tool | {"state": "output-available", "output": call["output"]}
    streaming = state in ("awaiting-input", "input-streaming")
    return tool | {"state": "input-streaming" if streaming else "input-available"}


def _file(part: Part, source: Mapping[str, Any]) -> Item:
    kind, value = part["type"], source.get("value", "")
    media_type = source.get("mimeType") or f"{kind if kind in _MEDIA else 'application'}/*"
    url = f"data:{media_type};base64,{value}" if source.get("type") == "data" else value
    metadata = part.get("metadata")
    name = metadata.get("filename") if isinstance(metadata, dict) else None
    return {"type": "file", "mediaType": media_type, "url": url} | ({"filename": name} if name else {})
