"""A message while it grows: the parts of TanStack's UIMessage, piece by piece."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from durable_chat.chunks import Chunk, extras
from durable_chat.messages.turns import Message, Part


class Draft:
    """A message that still grows, with its own copies of its parts, at a place in the conversation."""

    __slots__ = ("created_at", "id", "metadata", "parts", "position", "role")

    def __init__(
        self, message_id: str, role: Any, *, position: int, created_at: datetime | None = None
    ) -> None:
        self.id = message_id
        self.role = role if role in ("user", "system") else "assistant"
        self.position = position
        self.created_at = created_at
        self.parts: list[Part] = []
        self.metadata: dict[str, Any] = {}

    def message(self) -> Message:
        parts = tuple({key: settled(value) for key, value in part.items()} for part in self.parts)
        return Message(self.id, self.role, parts, dict(self.metadata), self.created_at)

    def merge(self, chunk: Chunk) -> None:
        """Take a chunk's metadata; TanStack's own is merged key by key, without its copies of the text."""
        metadata = chunk.get("metadata")
        if not isinstance(metadata, dict):
            return
        theirs = {key: value for key, value in extras(chunk).items() if key not in ("content", "args")}
        own = {**extras({"metadata": self.metadata}), **theirs}
        self.metadata = self.metadata | metadata | ({"tanstack": own} if own else {})

    def say(self, delta: str) -> None:
        """Go on with the last part if that is a text, else begin one."""
        if not self.parts or self.parts[-1].get("type") != "text":
            self.parts.append({"type": "text", "content": ""})
        extend(self.parts[-1], "content", delta)

    def thinking(self, step: str | None, *, otherwise: str) -> Part:
        """The part of this step, without one the last part that was thought, else a new one."""
        thoughts = [part for part in self.parts if part.get("type") == "thinking"]
        if step is not None:
            thoughts = [part for part in thoughts if part.get("stepId") == step]
        if not thoughts:
            thoughts = [{"type": "thinking", "content": "", "stepId": step or otherwise}]
            self.parts += thoughts
        return thoughts[-1]

    def call(self, call_id: str) -> Part | None:
        calls = (part for part in reversed(self.parts) if part.get("type") == "tool-call")
        return next((part for part in calls if part.get("id") == call_id), None)

    def answer(self, call: Part, content: Any, *, failed: bool) -> None:
        """Give a call its output, and the message the result's part: a new one or in place of an earlier."""
        output = decoded(content, otherwise=content) if isinstance(content, str) else content
        call |= {"output": output, "state": "error" if failed else "complete"}
        result: Part = {"type": "tool-result", "toolCallId": call["id"], "content": content}
        result["state"] = call["state"]
        if failed and (why := complaint(output)):
            result["error"] = why
        known = (i for i, part in enumerate(self.parts) if _answers(part, call["id"]))
        at = next(known, len(self.parts))
        self.parts[at : at + 1] = [result]


class Rope(list[str]):
    """A text that grows by pieces and is joined when it is read: appending to a long answer stays cheap."""


def extend(part: Part, key: str, delta: str) -> None:
    held = part.get(key)
    if not isinstance(held, Rope):
        held = part[key] = Rope([held] if isinstance(held, str) else [])
    held.append(delta)


def settled(value: Any) -> Any:
    """A part's value, a rope as the text it is."""
    return "".join(value) if isinstance(value, Rope) else value


def _answers(part: Part, call_id: str) -> bool:
    return part.get("type") == "tool-result" and part.get("toolCallId") == call_id


def complete(call: Part, given: Any) -> None:
    """The arguments of a call are known: ``given`` as a value, or else as the text that has arrived."""
    arguments = settled(call.get("arguments", ""))
    if given is not None and not arguments:
        call["arguments"] = _encoded(given)
    value = given if given is not None else decoded(arguments, otherwise=None)
    call["state"] = "input-complete"
    if value is not None:
        call["input"] = value


def _encoded(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # nested more deeply than JSON is written here
        return ""


def complaint(output: Any) -> str:
    """What a failed tool says for itself."""
    if isinstance(output, dict) and isinstance(output.get("error"), str):
        return str(output["error"])
    return output if isinstance(output, str) else "Tool execution failed"


def decoded(text: Any, *, otherwise: Any) -> Any:
    """The value that a JSON text holds."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return otherwise


def string(raw: Mapping[str, Any], key: str) -> str:
    """A field that should be a text; anything else counts as none."""
    value = raw.get(key)
    return value if isinstance(value, str) else ""


def timestamp(chunk: Chunk) -> datetime | None:
    """When a chunk says it was made, in milliseconds."""
    stamp = chunk.get("timestamp")
    if isinstance(stamp, bool) or not isinstance(stamp, int | float):
        return None
    try:
        return datetime.fromtimestamp(stamp / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def parts_of(raw: Mapping[str, Any]) -> list[Part]:
    """The parts of a snapshot's message: a UIMessage's own, or made of AG-UI's content and tool calls."""
    listed = raw.get("parts")
    if isinstance(listed, list):
        return [dict(part) for part in listed if isinstance(part, dict)]
    content, calls = raw.get("content"), raw.get("toolCalls")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}] if content else []
    said = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    called = [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    return [*map(_content_part, said), *map(_call_part, called)]


def _content_part(part: Mapping[str, Any]) -> Part:
    if part.get("type") == "text" and "text" in part:
        return {"type": "text", "content": string(part, "text")}
    return dict(part)


def _call_part(call: Mapping[str, Any]) -> Part:
    function = call.get("function")
    named = function if isinstance(function, dict) else {}
    part: Part = {"type": "tool-call", "id": string(call, "id"), "name": string(named, "name")}
    part["arguments"] = string(named, "arguments")
    complete(part, None)
    return part
