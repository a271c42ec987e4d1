"""One run as the AI SDK sees it: a stream of UIMessageChunks that make one message."""

from collections.abc import Callable, Mapping
from typing import Final

from durable_chat.chunks import Chunk, extras, is_terminal, run_id_of
from durable_chat.dialects.base import Item
from durable_chat.messages.drafts import complaint, decoded

_FINISH: Final[Mapping[str, str]] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content-filter",
    "tool_calls": "tool-calls",
}


class RunTranscoder:
    """The chunks of one run as UIMessageChunks of one message.

    One text or reasoning part is open at a time and opens with its first piece, because the client shows
    parts in the order in which they open. Chunks of other runs and of users are passed over, and so is
    whatever the client would refuse: a delta of a part that it has not seen begin.
    """

    def __init__(self, run_id: str) -> None:
        self.done = False
        self._run_id = run_id
        self._live = False
        self._foreign: set[str] = set()  # messages of users and of the system
        self._part: tuple[str, str, str] | None = None  # kind, id in the stream, id of the open part
        self._parts = 0
        self._calls: dict[str, _Call] = {}
        self._answered = False

    def feed(self, chunk: Chunk) -> list[Item]:
        """The items that one chunk gives: none, one or several."""
        if self.done or not isinstance(chunk, dict):
            return []  # whoever can write the stream may write anything
        kind = chunk.get("type")
        if kind == "RUN_STARTED":
            return self._begin(chunk)
        if is_terminal(chunk, self._run_id) and (self._live or run_id_of(chunk)):
            return self._end(chunk)
        rule = _RULES.get(kind) if self._live and isinstance(kind, str) else None
        return rule(self, chunk) if rule is not None else []

    def _begin(self, chunk: Chunk) -> list[Item]:
        if self._live or run_id_of(chunk) != self._run_id:
            return []
        self._live = True
        metadata = chunk.get("metadata")
        ours = metadata.get("durable_chat") if isinstance(metadata, dict) else None
        message_id = ours.get("messageId") if isinstance(ours, dict) else None
        start: Item = {"type": "start"} | ({"messageId": message_id} if message_id else {})
        return [start, {"type": "start-step"}]

    def _end(self, chunk: Chunk) -> list[Item]:
        closing = [*self._close(), {"type": "finish-step"}] if self._live else []
        self.done = True
        if chunk["type"] == "RUN_ERROR":
            if chunk.get("code") == "stopped":
                return [*closing, {"type": "abort"}]
            return [
                *closing,
                {"type": "error", "errorText": str(chunk.get("message") or "The answer failed.")},
            ]
        reason = _FINISH.get(str(extras(chunk).get("finishReason")))
        return [*closing, {"type": "finish"} | ({"finishReason": reason} if reason else {})]

    # text and reasoning

    def _text_start(self, chunk: Chunk) -> list[Item]:
        if chunk.get("role") in ("user", "system"):
            self._foreign.add(str(chunk.get("messageId")))
        return []

    def _text(self, chunk: Chunk) -> list[Item]:
        return [] if chunk.get("messageId") in self._foreign else self._delta("text", chunk)

    def _reasoning(self, chunk: Chunk) -> list[Item]:
        return self._delta("reasoning", chunk)

    def _delta(self, kind: str, chunk: Chunk) -> list[Item]:
        delta, source = chunk.get("delta"), str(chunk.get("messageId"))
        if not isinstance(delta, str) or not delta:
            return []
        items: list[Item] = []
        if self._part is None or self._part[:2] != (kind, source):
            items = self._another()
            self._part = (kind, source, f"{source}-{self._parts}")
            items.append({"type": f"{kind}-start", "id": self._part[2]})
        return [*items, {"type": f"{kind}-delta", "id": self._part[2], "delta": delta}]

    def _reasoning_end(self, chunk: Chunk) -> list[Item]:
        ended = ("reasoning", chunk.get("messageId"))
        return self._close() if self._part is not None and self._part[:2] == ended else []

    def _close(self) -> list[Item]:
        """End the open part. A text ends here only: its message may go on where it left off."""
        if self._part is None:
            return []
        (kind, _, part_id), self._part = self._part, None
        return [{"type": f"{kind}-end", "id": part_id}]

    def _another(self) -> list[Item]:
        """Make room for another part: after a tool's answer it belongs to the model's next step."""
        items = self._close()
        self._parts += 1
        if self._answered and not any(call.open for call in self._calls.values()):
            self._answered = False
            items += [{"type": "finish-step"}, {"type": "start-step"}]
        return items

    # tools

    def _tool_start(self, chunk: Chunk) -> list[Item]:
        call_id, name = chunk.get("toolCallId"), chunk.get("toolCallName")
        if not isinstance(call_id, str) or not isinstance(name, str) or call_id in self._calls:
            return []
        items = self._another()
        self._calls[call_id] = _Call(name)
        return [*items, {"type": "tool-input-start", "toolCallId": call_id, "toolName": name}]

    def _tool_args(self, chunk: Chunk) -> list[Item]:
        call, delta = self._calls.get(str(chunk.get("toolCallId"))), chunk.get("delta")
        if call is None or not call.open or not isinstance(delta, str) or not delta:
            return []
        call.arguments.append(delta)
        return [{"type": "tool-input-delta", "toolCallId": chunk["toolCallId"], "inputTextDelta": delta}]

    def _tool_end(self, chunk: Chunk) -> list[Item]:
        call_id = str(chunk.get("toolCallId"))
        call = self._calls.get(call_id)
        if call is None or not call.open:
            return []
        call.open = False
        given = extras(chunk).get("input")
        arguments = "".join(call.arguments) or "{}"
        value = given if given is not None else decoded(arguments, otherwise=arguments)
        return [
            {"type": "tool-input-available", "toolCallId": call_id, "toolName": call.name, "input": value}
        ]

    def _tool_result(self, chunk: Chunk) -> list[Item]:
        call_id, content = str(chunk.get("toolCallId")), chunk.get("content")
        if call_id not in self._calls or content is None:
            return []
        items = [*self._close(), *self._tool_end({"toolCallId": call_id})]
        self._answered = True
        output = decoded(content, otherwise=content) if isinstance(content, str) else content
        if extras(chunk).get("state") == "output-error":
            told = {"type": "tool-output-error", "toolCallId": call_id, "errorText": complaint(output)}
        else:
            told = {"type": "tool-output-available", "toolCallId": call_id, "output": output}
        return [*items, told]


class _Call:
    """A tool call whose arguments may still be coming."""

    __slots__ = ("arguments", "name", "open")

    def __init__(self, name: str) -> None:
        self.name = name
        self.arguments: list[str] = []
        self.open = True


_RULES: Final[Mapping[str, Callable[[RunTranscoder, Chunk], list[Item]]]] = {
    "TEXT_MESSAGE_START": RunTranscoder._text_start,
    "TEXT_MESSAGE_CONTENT": RunTranscoder._text,
    "REASONING_MESSAGE_CONTENT": RunTranscoder._reasoning,
    "REASONING_MESSAGE_END": RunTranscoder._reasoning_end,
    "TOOL_CALL_START": RunTranscoder._tool_start,
    "TOOL_CALL_ARGS": RunTranscoder._tool_args,
    "TOOL_CALL_END": RunTranscoder._tool_end,
    "TOOL_CALL_RESULT": RunTranscoder._tool_result,
}
