"""The fold: a stream's chunks into the messages that TanStack's own client shows for them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from durable_chat.chunks import (
    Chunk,
    extras,
    reasoning_end,
    reasoning_message_end,
    step_finished,
    text_end,
    tool_call_end,
    tool_call_result,
)
from durable_chat.messages.drafts import Draft, complete, extend, parts_of, string, timestamp
from durable_chat.messages.turns import Message, Part


def fold(chunks: Iterable[Chunk], messages: Iterable[Message] = ()) -> tuple[Message, ...]:
    """``messages`` as they are after ``chunks``."""
    folding = Fold(messages)
    for chunk in chunks:
        folding.apply(chunk)
    return folding.messages


class Fold:
    """Chunks into messages, one at a time.

    Everything but the list of open parts is derived from the messages, so a fold may be cut wherever nothing
    is open and go on from the messages alone. What is malformed or unknown is passed over, never refused:
    what is in the stream has happened.
    """

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self._clear()
        for message in messages:
            draft = self._draft(message.id, message.role, {})
            draft.metadata, draft.created_at = dict(message.metadata), message.created_at
            self._fill(draft, [dict(part) for part in message.parts])

    @property
    def messages(self) -> tuple[Message, ...]:
        return tuple(draft.message() for draft in self._drafts.values())

    def apply(self, chunk: Chunk) -> None:
        kind = chunk.get("type") if isinstance(chunk, dict) else None
        rule = _RULES.get(kind) if isinstance(kind, str) else None
        if rule is not None:
            rule(self, chunk)

    def closers(self, reason: str) -> list[Chunk]:
        """The chunks that end every open part, innermost first; unanswered tool calls are told ``reason``."""
        return [chunk for kind, name in reversed(self._open) for chunk in _CLOSERS[kind](name, reason)]

    # what is written, and where

    def _clear(self) -> None:
        self._drafts: dict[str, Draft] = {}
        self._callers: dict[str, Draft] = {}  # tool call id -> the newest message that holds it
        self._open: dict[tuple[str, str], None] = {}  # (kind, id), innermost last

    def _fill(self, draft: Draft, parts: list[Part]) -> None:
        draft.parts = parts
        for part in parts:
            if part.get("type") == "tool-call" and isinstance(part.get("id"), str):
                self._callers[part["id"]] = draft

    def _draft(self, message_id: str, role: object, chunk: Chunk) -> Draft:
        """The message of this id, made if there is none."""
        if message_id not in self._drafts:
            made = Draft(message_id, role, position=len(self._drafts), created_at=timestamp(chunk))
            self._drafts[message_id] = made
        return self._drafts[message_id]

    def _current(self) -> Draft | None:
        """The message that takes what names none: the last, if it is an assistant's."""
        last = next(reversed(self._drafts.values()), None)
        return last if last is not None and last.role == "assistant" else None

    def _call(self, call_id: str) -> Part | None:
        draft = self._callers.get(call_id)
        return draft.call(call_id) if draft is not None else None

    def _begin(self, kind: str, name: str) -> None:
        if name:
            self._open.setdefault((kind, name))

    def _finish(self, kind: str, name: str) -> bool:
        """End this part. Whether it was open."""
        was_open = (kind, name) in self._open
        self._open.pop((kind, name), None)
        return was_open

    # text

    def _text_start(self, chunk: Chunk) -> None:
        if message_id := string(chunk, "messageId"):
            self._draft(message_id, chunk.get("role"), chunk).merge(chunk)
            self._begin("text", message_id)

    def _text_content(self, chunk: Chunk) -> None:
        if message_id := string(chunk, "messageId"):
            draft = self._draft(message_id, "assistant", chunk)
            draft.merge(chunk)
            self._begin("text", message_id)
            if delta := string(chunk, "delta"):
                draft.say(delta)

    def _text_end(self, chunk: Chunk) -> None:
        message_id = string(chunk, "messageId")
        self._finish("text", message_id)
        if message_id in self._drafts:
            self._drafts[message_id].merge(chunk)

    # reasoning

    def _reasoning_start(self, chunk: Chunk) -> None:
        self._begin("reasoning", string(chunk, "messageId"))

    def _reasoning_message_start(self, chunk: Chunk) -> None:
        self._begin("thought", string(chunk, "messageId"))

    def _reasoning_message_content(self, chunk: Chunk) -> None:
        if message_id := string(chunk, "messageId"):
            self._begin("thought", message_id)
            extend(self._thinking(message_id, chunk), "content", string(chunk, "delta"))

    def _reasoning_message_end(self, chunk: Chunk) -> None:
        self._finish("thought", string(chunk, "messageId"))

    def _reasoning_end(self, chunk: Chunk) -> None:
        self._finish("reasoning", string(chunk, "messageId"))

    def _reasoning_signature(self, chunk: Chunk) -> None:
        entity, signature = string(chunk, "entityId"), string(chunk, "encryptedValue")
        if not entity or not signature:
            return
        if chunk.get("subtype") != "tool-call":
            self._thinking(entity, chunk)["signature"] = signature
        elif (call := self._call(entity)) is not None:
            metadata = call.get("metadata")
            kept = metadata if isinstance(metadata, dict) else {}
            call["metadata"] = kept | {"thoughtSignature": signature}

    def _thinking(self, reasoning_id: str, chunk: Chunk) -> Part:
        draft = self._current() or self._draft(reasoning_id, "assistant", chunk)
        step = next((name for kind, name in reversed(self._open) if kind == "step"), None)
        return draft.thinking(step, otherwise=reasoning_id)

    def _step_started(self, chunk: Chunk) -> None:
        self._begin("step", string(chunk, "stepName"))

    def _step_finished(self, chunk: Chunk) -> None:
        self._finish("step", string(chunk, "stepName"))

    # tool calls

    def _tool_start(self, chunk: Chunk) -> None:
        call_id, parent = string(chunk, "toolCallId"), string(chunk, "parentMessageId")
        if not call_id:
            return
        draft = self._drafts.get(parent) or self._current()
        draft = draft or self._draft(parent or call_id, "assistant", chunk)
        holder = self._callers.get(call_id)
        if holder is not None and holder.position >= draft.position:
            return  # some models count their calls anew in every answer: a newer message makes a new call
        part: Part = {"type": "tool-call", "id": call_id, "name": string(chunk, "toolCallName")}
        part |= {"arguments": "", "state": "awaiting-input"}
        metadata = chunk.get("metadata")
        draft.parts.append(part | ({"metadata": metadata} if isinstance(metadata, dict) else {}))
        self._callers[call_id] = draft
        self._finish("result", call_id)
        self._begin("call", call_id)

    def _tool_args(self, chunk: Chunk) -> None:
        call_id, delta = string(chunk, "toolCallId"), string(chunk, "delta")
        call = self._call(call_id) if ("call", call_id) in self._open else None
        if call is not None and delta:
            extend(call, "arguments", delta)
            call["state"] = "input-streaming"

    def _tool_end(self, chunk: Chunk) -> None:
        call_id = string(chunk, "toolCallId")
        call = self._call(call_id) if self._finish("call", call_id) else None
        if call is not None:
            complete(call, chunk.get("input", extras(chunk).get("input")))
            self._begin("result", call_id)

    def _tool_result(self, chunk: Chunk) -> None:
        call_id, content = string(chunk, "toolCallId"), chunk.get("content")
        call = self._call(call_id)
        if call is None or content is None:
            return
        if self._finish("call", call_id):
            complete(call, None)
        self._finish("result", call_id)
        failed = "output-error" in (chunk.get("state"), extras(chunk).get("state"))
        self._callers[call_id].answer(call, content, failed=failed)

    # all of it

    def _snapshot(self, chunk: Chunk) -> None:
        listed = chunk.get("messages")
        if not isinstance(listed, list):
            return
        before = self._drafts
        self._clear()
        for raw in listed:
            if isinstance(raw, dict) and (message_id := string(raw, "id")):
                self._take(message_id, raw, before)

    def _take(self, message_id: str, raw: Chunk, before: Mapping[str, Draft]) -> None:
        """One message of a snapshot: a UIMessage, or AG-UI's own, whose tool results are messages."""
        role = raw.get("role")
        if role == "tool" and "parts" not in raw:
            self._tool_result(raw)
            return
        draft = self._draft(message_id, "system" if role == "developer" else role, raw)
        draft.merge(raw)
        if not draft.metadata and message_id in before:
            draft.metadata = before[message_id].metadata
        self._fill(draft, parts_of(raw))


_RULES: Final[Mapping[str, Callable[[Fold, Chunk], None]]] = {
    "TEXT_MESSAGE_START": Fold._text_start,
    "TEXT_MESSAGE_CONTENT": Fold._text_content,
    "TEXT_MESSAGE_END": Fold._text_end,
    "REASONING_START": Fold._reasoning_start,
    "REASONING_MESSAGE_START": Fold._reasoning_message_start,
    "REASONING_MESSAGE_CONTENT": Fold._reasoning_message_content,
    "REASONING_MESSAGE_END": Fold._reasoning_message_end,
    "REASONING_END": Fold._reasoning_end,
    "REASONING_ENCRYPTED_VALUE": Fold._reasoning_signature,
    "STEP_STARTED": Fold._step_started,
    "STEP_FINISHED": Fold._step_finished,
    "TOOL_CALL_START": Fold._tool_start,
    "TOOL_CALL_ARGS": Fold._tool_args,
    "TOOL_CALL_END": Fold._tool_end,
    "TOOL_CALL_RESULT": Fold._tool_result,
    "MESSAGES_SNAPSHOT": Fold._snapshot,
}

_CLOSERS: Final[Mapping[str, Callable[[str, str], list[Chunk]]]] = {
    "text": lambda name, _: [text_end(name)],
    "thought": lambda name, _: [reasoning_message_end(name)],
    "reasoning": lambda name, _: [reasoning_end(name)],
    "step": lambda name, _: [step_finished(name)],
    "call": lambda name, reason: [tool_call_end(name), _unanswered(name, reason)],
    "result": lambda name, reason: [_unanswered(name, reason)],
}


def _unanswered(call_id: str, reason: str) -> Chunk:
    return tool_call_result(call_id, call_id, {"error": reason}, failed=True)
