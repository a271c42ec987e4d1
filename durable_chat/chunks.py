"""The items of a conversation's stream: AG-UI events as JSON objects, made and sanitised here."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import orjson

Chunk: TypeAlias = dict[str, Any]


class BadChunk(ValueError):
    """A provider yielded what is no chunk, or none that readers could show. For its author, not for users."""


# --- constructors ----------------------------------------------------------------------------------------


def run_started(thread_id: str, run_id: str, *, message_id: str | None = None) -> Chunk:
    """The run has been accepted. ``message_id`` is the id that its answer will have."""
    chunk: Chunk = {"type": "RUN_STARTED", "threadId": thread_id, "runId": run_id}
    return chunk | ({"metadata": {"durable_chat": {"messageId": message_id}}} if message_id else {})


def run_finished(
    thread_id: str, run_id: str, *, finish_reason: str | None = "stop", usage: Any = None
) -> Chunk:
    """The answer is complete. ``finish_reason`` is stop, length, content_filter, tool_calls or None."""
    chunk: Chunk = {
        "type": "RUN_FINISHED",
        "threadId": thread_id,
        "runId": run_id,
        "metadata": {"tanstack": {"finishReason": finish_reason}},
    }
    return chunk | ({"usage": usage} if usage is not None else {})


def run_error(message: str, *, thread_id: str, run_id: str | None, code: str, usage: Any = None) -> Chunk:
    """The run has failed. Without ``run_id`` it ends every run that a client believes to be active."""
    named = {"threadId": thread_id} | ({"runId": run_id} if run_id is not None else {})
    chunk = {"type": "RUN_ERROR", "message": message, "code": code, "metadata": {"tanstack": named}}
    return chunk | ({"usage": usage} if usage is not None else {})


def text_start(message_id: str, role: str = "assistant") -> Chunk:
    return {"type": "TEXT_MESSAGE_START", "messageId": message_id, "role": role}


def text_content(message_id: str, delta: str) -> Chunk:
    return {"type": "TEXT_MESSAGE_CONTENT", "messageId": message_id, "delta": delta}


def text_end(message_id: str) -> Chunk:
    return {"type": "TEXT_MESSAGE_END", "messageId": message_id}


def reasoning_start(message_id: str) -> Chunk:
    return {"type": "REASONING_START", "messageId": message_id}


def reasoning_message_start(message_id: str) -> Chunk:
    return {"type": "REASONING_MESSAGE_START", "messageId": message_id, "role": "reasoning"}


def reasoning_message_content(message_id: str, delta: str) -> Chunk:
    return {"type": "REASONING_MESSAGE_CONTENT", "messageId": message_id, "delta": delta}


def reasoning_message_end(message_id: str) -> Chunk:
    return {"type": "REASONING_MESSAGE_END", "messageId": message_id}


def reasoning_end(message_id: str) -> Chunk:
    return {"type": "REASONING_END", "messageId": message_id}


def step_started(name: str) -> Chunk:
    """What is thought from here on is a part of its own; without steps a message has one part of thinking."""
    return {"type": "STEP_STARTED", "stepName": name}


def step_finished(name: str) -> Chunk:
    return {"type": "STEP_FINISHED", "stepName": name}


def tool_call_start(tool_call_id: str, name: str, *, parent_message_id: str | None = None) -> Chunk:
    """A tool is being called, by the message ``parent_message_id`` or else by the one being written."""
    chunk: Chunk = {"type": "TOOL_CALL_START", "toolCallId": tool_call_id, "toolCallName": name}
    return chunk | ({"parentMessageId": parent_message_id} if parent_message_id else {})


def tool_call_args(tool_call_id: str, delta: str) -> Chunk:
    """A piece of the arguments' JSON text."""
    return {"type": "TOOL_CALL_ARGS", "toolCallId": tool_call_id, "delta": delta}


def tool_call_end(tool_call_id: str, *, input: Any = None) -> Chunk:
    """The arguments are complete. ``input`` is their value, for providers that do not stream their text."""
    chunk: Chunk = {"type": "TOOL_CALL_END", "toolCallId": tool_call_id}
    return chunk | ({"metadata": {"tanstack": {"input": input}}} if input is not None else {})


def tool_call_result(tool_call_id: str, message_id: str, content: Any, *, failed: bool = False) -> Chunk:
    """What the tool answered: a text, or a JSON value that is sent as its text."""
    chunk: Chunk = {
        "type": "TOOL_CALL_RESULT",
        "toolCallId": tool_call_id,
        "messageId": message_id,
        "content": _text_of(content),
    }
    return chunk | ({"metadata": {"tanstack": {"state": "output-error"}}} if failed else {})


def custom(name: str, value: Any = None) -> Chunk:
    return {"type": "CUSTOM", "name": name, "value": value}


def messages_snapshot(messages: Sequence[Mapping[str, Any]]) -> Chunk:
    """The whole conversation anew, as UI messages (``Message.as_json``)."""
    return {"type": "MESSAGES_SNAPSHOT", "messages": [dict(message) for message in messages]}


# --- questions -------------------------------------------------------------------------------------------


def extras(chunk: Mapping[str, Any]) -> Mapping[str, Any]:
    """What TanStack keeps beside AG-UI's own fields: ``metadata.tanstack``, or nothing."""
    metadata = chunk.get("metadata")
    tanstack = metadata.get("tanstack") if isinstance(metadata, dict) else None
    return tanstack if isinstance(tanstack, dict) else {}


def run_id_of(chunk: Mapping[str, Any]) -> str | None:
    """The run that a RUN_* chunk names: a field of its own, on RUN_ERROR in ``metadata.tanstack``."""
    for value in (chunk.get("runId"), extras(chunk).get("runId")):
        if isinstance(value, str) and value:
            return value
    return None


def is_terminal(chunk: Mapping[str, Any], run_id: str | None = None) -> bool:
    """Whether this chunk ends a run: that run, if one is named. A RUN_ERROR without a run id ends all."""
    if chunk.get("type") not in ("RUN_FINISHED", "RUN_ERROR"):
        return False
    named = run_id_of(chunk)
    return run_id is None or named == run_id or (named is None and chunk["type"] == "RUN_ERROR")


# --- what a provider may write ---------------------------------------------------------------------------

_REQUIRED: Final[Mapping[str, Mapping[str, type]]] = {
    "TEXT_MESSAGE_START": {"messageId": str, "role": str},
    "TEXT_MESSAGE_CONTENT": {"messageId": str, "delta": str},
    "TEXT_MESSAGE_END": {"messageId": str},
    "TOOL_CALL_START": {"toolCallId": str, "toolCallName": str},
    "TOOL_CALL_ARGS": {"toolCallId": str, "delta": str},
    "TOOL_CALL_END": {"toolCallId": str},
    "TOOL_CALL_RESULT": {"toolCallId": str, "messageId": str, "content": str},
    "REASONING_START": {"messageId": str},
    "REASONING_MESSAGE_START": {"messageId": str, "role": str},
    "REASONING_MESSAGE_CONTENT": {"messageId": str, "delta": str},
    "REASONING_MESSAGE_END": {"messageId": str},
    "REASONING_END": {"messageId": str},
    "REASONING_ENCRYPTED_VALUE": {"subtype": str, "entityId": str, "encryptedValue": str},
    "STEP_STARTED": {"stepName": str},
    "STEP_FINISHED": {"stepName": str},
    "STATE_SNAPSHOT": {"snapshot": object},
    "STATE_DELTA": {"delta": list},
    "MESSAGES_SNAPSHOT": {"messages": list},
    "ACTIVITY_SNAPSHOT": {"messageId": str, "activityType": str, "content": object},
    "ACTIVITY_DELTA": {"messageId": str, "activityType": str, "patch": list},
    "RAW": {"event": object},
    "CUSTOM": {"name": str, "value": object},
}
_OPTIONAL: Final[Mapping[str, frozenset[str]]] = {
    "TEXT_MESSAGE_START": frozenset({"name"}),
    "TOOL_CALL_START": frozenset({"parentMessageId"}),
    "TOOL_CALL_RESULT": frozenset({"role"}),
    "ACTIVITY_SNAPSHOT": frozenset({"replace"}),
    "RAW": frozenset({"source"}),
}
_TEXT_MAY_BE_EMPTY: Final = frozenset({"delta", "content"})
_ROLES: Final = frozenset({"assistant", "developer", "system", "user"})
# Accumulated copies of what the deltas say, and what may hold the model service's own headers and errors.
_DROPPED: Final[Mapping[str, frozenset[str]]] = {
    "TEXT_MESSAGE_CONTENT": frozenset({"content", "model"}),
    "TOOL_CALL_ARGS": frozenset({"args", "model"}),
}
_INSTEAD: Final[Mapping[str, str]] = {
    "TEXT_MESSAGE_CHUNK": "TEXT_MESSAGE_START, _CONTENT and _END",
    "TOOL_CALL_CHUNK": "TOOL_CALL_START, _ARGS and _END",
    "REASONING_MESSAGE_CHUNK": "REASONING_MESSAGE_START, _CONTENT and _END",
    "THINKING_START": "REASONING_START",
    "THINKING_END": "REASONING_END",
    "THINKING_TEXT_MESSAGE_START": "REASONING_MESSAGE_START",
    "THINKING_TEXT_MESSAGE_CONTENT": "REASONING_MESSAGE_CONTENT",
    "THINKING_TEXT_MESSAGE_END": "REASONING_MESSAGE_END",
}


def sanitize(chunk: Any) -> Chunk:
    """What a provider yielded, as it may be stored: plain JSON, AG-UI's own fields, the rest in ``metadata``.

    Raises BadChunk, with a sentence for the provider's author, for anything that readers could not show.
    """
    if not isinstance(chunk, Mapping):
        raise BadChunk(f"A provider yields text or chunks (JSON objects), not {type(chunk).__name__}.")
    try:
        raw = plain(dict(chunk))
    except ValueError as error:
        raise BadChunk(str(error)) from error
    kind = raw.get("type")
    if not isinstance(kind, str) or kind not in _REQUIRED:
        raise BadChunk(_refusal(kind))
    if kind == "TEXT_MESSAGE_CONTENT" and raw.get("delta") is None and "content" in raw:
        raise BadChunk("TEXT_MESSAGE_CONTENT needs a delta: its content is the whole text so far.")
    _fill_in(kind, raw)
    _check(kind, raw)
    return _arranged(kind, raw)


_LONGEST_INTEGER: Final = len(str(2**64))


class Decoder(json.JSONDecoder):
    """What ``plain`` let through, as a database gives it back: PostgreSQL writes 1e30 with all its digits.

    No such integer fits into the 64 bits that JSON has here; as a float it is what was stored.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"parse_int": _number})


def _number(digits: str) -> int | float:
    number = int(digits) if len(digits) <= _LONGEST_INTEGER else None
    return number if number is not None and -(2**63) <= number < 2**64 else float(digits)


def plain(value: Any) -> Any:
    """The value as readers will get it back: JSON, valid UTF-8, no NUL (PostgreSQL's jsonb holds none).

    Raises ValueError for what JSON cannot hold.
    """
    try:
        encoded = orjson.dumps(value)
    except TypeError:
        encoded = b""  # perhaps only a lone surrogate, which mending replaces
    if encoded and rb"\u0000" not in encoded:
        return orjson.loads(encoded)
    try:
        return orjson.loads(orjson.dumps(_mended(value)))
    except (TypeError, RecursionError) as error:
        raise ValueError(f"This is not JSON: {error}.") from error


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        # Through UTF-16, so that two surrogates that make a character do.
        return (
            value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("\0", "\ufffd")
        )
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mended(item) for item in value]
    return value


def _refusal(kind: Any) -> str:
    if isinstance(kind, str) and kind.startswith("RUN_"):
        return f"{kind} is written by the run itself, a provider yields what it says."
    if isinstance(kind, str) and kind in _INSTEAD:
        return f"{kind} is not shown by every client: yield {_INSTEAD[kind]} instead."
    return f"{kind!r:.100} is not the type of a chunk."


def _fill_in(kind: str, raw: Chunk) -> None:
    """Give what AG-UI defaults, and take what TanStack's own adapters call by other names."""
    if kind == "TEXT_MESSAGE_START":
        raw.setdefault("role", "assistant")
    elif kind == "REASONING_MESSAGE_START":
        raw["role"] = "reasoning"
    elif kind == "TOOL_CALL_START":
        name = raw.pop("toolName", None)
        raw.setdefault("toolCallName", name)
    elif kind == "TOOL_CALL_RESULT":
        raw.setdefault("messageId", raw.get("toolCallId"))
        raw["content"] = _text_of(raw.get("content"))
    elif kind == "CUSTOM":
        raw.setdefault("value", None)


def _check(kind: str, raw: Chunk) -> None:
    for key, expected in _REQUIRED[kind].items():
        if key not in raw:
            raise BadChunk(f"{kind} needs {key}.")
        if not isinstance(raw[key], expected):
            raise BadChunk(f"{kind}.{key} must be of type {expected.__name__}.")
        if raw[key] == "" and expected is str and key not in _TEXT_MAY_BE_EMPTY:
            raise BadChunk(f"{kind}.{key} must not be empty.")
    if kind == "TEXT_MESSAGE_START" and raw["role"] not in _ROLES:
        raise BadChunk(f"TEXT_MESSAGE_START.role must be one of {', '.join(sorted(_ROLES))}.")


def _arranged(kind: str, raw: Chunk) -> Chunk:
    own = {"type", *_REQUIRED[kind], *_OPTIONAL.get(kind, ())}
    dropped = {"type", "timestamp", "metadata", "rawEvent", *_DROPPED.get(kind, ())}
    chunk = {key: raw[key] for key in raw if key in own and (raw[key] is not None or key in _REQUIRED[kind])}
    rest = {key: raw[key] for key in raw if key not in own | dropped and raw[key] is not None}
    if isinstance(raw.get("timestamp"), int | float):
        chunk["timestamp"] = raw["timestamp"]
    metadata = raw["metadata"] if isinstance(raw.get("metadata"), dict) else {}
    if rest:
        metadata = metadata | {"tanstack": rest | dict(extras(raw))}
    return chunk | ({"metadata": metadata} if metadata else {})


def _text_of(content: Any) -> str:
    return content if isinstance(content, str) else orjson.dumps(content).decode()
