"""What a provider yields, made into the chunks that are stored, and folded as they go."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import orjson

from durable_chat.chunks import (
    Chunk,
    custom,
    messages_snapshot,
    plain,
    run_finished,
    run_started,
    sanitize,
    text_content,
    text_end,
    text_start,
)
from durable_chat.messages import Fold, Message, Part, echo

LONGEST_ID = 80  # of a provider's message id; the run's own is put before it
SNAPSHOT_BYTES = 4 * 1024 * 1024
USAGE = "run.usage"  # CUSTOM: what an answer has used so far


def opening(messages: Sequence[Message], *, echoed: bool, replaces: bool) -> tuple[Chunk, ...]:
    """What the stream must say before an answer to the last of `messages` begins.

    A new message is echoed; one that is asked again and was answered makes every reader drop the old answer.
    The echo holds one text: clients append it to what the sender shows already, and get any other message
    wrong (text before an image comes twice). The snapshot after it sets them right.
    """
    asked = messages[-1]
    plain_text = [part["type"] for part in asked.parts] == ["text"]
    chunks = [] if echoed else echo(asked)
    if replaces or not (echoed or plain_text):
        chunks.append(snapshot(messages))
    return tuple(chunks)


def closing(
    fold: Fold, reason: str, *, name: str | None = None, ended: str = "", known: Sequence[Message] = ()
) -> list[Chunk]:
    """What ends an answer before its terminal chunk, applied to `fold`: every open part is closed.

    Tool calls without a result get one that gives the `reason`. With a `name` (of the answer that fails) the
    answer begins once more: a reader that has not seen it begin would show the error as a message of its own,
    under an id that nobody else knows. Its message then says how it `ended`, in `metadata.durable_chat`.
    """
    chunks = fold.closers(reason)
    if name is not None:
        answered = [message.id for message in fold.messages[len(known) :] if message.role == "assistant"]
        name = answered[-1] if answered else name
        chunks += [text_start(name), text_end(name) | {"metadata": {"durable_chat": {"ended": ended}}}]
    for chunk in chunks:
        fold.apply(chunk)
    return chunks


def usage_of(run_id: str, chunks: Iterable[Chunk]) -> Any:
    """What the answer of a run has used, as far as its chunks tell; None when they do not."""
    usage = None
    for chunk in chunks:
        value = chunk.get("value") if chunk.get("name") == USAGE else None
        if isinstance(value, dict) and value.get("runId") == run_id:
            usage = value.get("usage")
    return usage


def message_id(run_id: str) -> str:
    """The id of the message that a run writes."""
    return f"answer-{run_id}"


def snapshot(messages: Sequence[Message]) -> Chunk:
    """All messages; when that is too much for one append, without the files of those before the last."""
    chunk = messages_snapshot([message.as_json() for message in messages])
    if len(orjson.dumps(chunk)) <= SNAPSHOT_BYTES:
        return chunk
    *before, last = messages
    light = [replace(message, parts=tuple(filter(_is_light, message.parts))) for message in before]
    return messages_snapshot([message.as_json() for message in (*light, last)])


def _is_light(part: Part) -> bool:
    source = part.get("source")
    return not (isinstance(source, dict) and source.get("type") == "data")


class Answer:
    """The answer of one run as it grows. Pure: chunks in, chunks out; the run does the writing.

    Clients put a thought or a tool call that comes first on the message before, and join a text that goes on
    after a thought or a result with the text before it. So a message is begun before anything is put on it,
    and a text that goes on after something else is another message.
    """

    def __init__(self, *, thread_id: str, run_id: str) -> None:
        self._thread_id = thread_id
        self._run_id = run_id
        self._message_id = message_id(run_id)
        self._texts = 1
        self._text_open = False  # a text that plain strings opened, and that is ours to close
        self._begun = False
        self._spoken = False  # there is a text since the last tool call began
        self._broken = False  # and something since, which it must not be continued across
        self._fold = Fold()
        self.usage: Any = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """What `stored` has been told of, folded."""
        return self._fold.messages

    def started(self) -> Chunk:
        return run_started(self._thread_id, self._run_id, message_id=self._message_id)

    def finished(self) -> Chunk:
        return run_finished(self._thread_id, self._run_id, usage=self.usage)

    def chunks(self, item: str | Chunk) -> list[Chunk]:
        """The chunks to store for one item of the provider: a piece of text, or a chunk.

        A provider that speaks whole AG-UI may frame its answer in RUN_*: the frame is the run's own, so only
        what it tells is taken. Raises ValueError for what is no chunk, RuntimeError for a RUN_ERROR.
        """
        if isinstance(item, str):
            return self._text(item) if item else []
        if isinstance(item, dict) and str(item.get("type")).startswith("RUN_"):
            return self._framed(item)
        return self._other(self._renamed(sanitize(item)))

    def stored(self, chunk: Chunk) -> None:
        """This chunk is on its way to the stream: it counts."""
        self._fold.apply(chunk)

    def close(self, reason: str, *, ended: str = "") -> list[Chunk]:
        """What must be stored before the terminal chunk; it counts. `ended`: how, if not whole."""
        return closing(self._fold, reason, name=self._message_id if ended else None, ended=ended)

    def _framed(self, chunk: Chunk) -> list[Chunk]:
        if chunk["type"] == "RUN_ERROR":
            raise RuntimeError(str(chunk.get("message")))  # written for developers: users are told no details
        usage = plain(chunk.get("usage"))
        if usage is None or usage == self.usage:
            return []
        self.usage = usage
        return [custom(USAGE, {"runId": self._run_id, "usage": usage})]  # the process may not live to its end

    def _renamed(self, chunk: Chunk) -> Chunk:
        """The provider's message ids as this run's: the next answer may use the same ones again."""
        if chunk["type"] == "MESSAGES_SNAPSHOT":
            raise ValueError(
                "MESSAGES_SNAPSHOT would restate the conversation: a provider yields its answer."
            )
        keys = ["messageId", "parentMessageId"]
        if chunk.get("subtype") == "message":
            keys.append("entityId")
        return chunk | {key: self._own(chunk[key]) for key in keys if key in chunk}

    def _own(self, given: str) -> str:
        own = message_id(self._run_id)
        if given.startswith(own):
            return given
        short = given if len(given) <= LONGEST_ID else sha256(given.encode()).hexdigest()
        return f"{own}-{short}"

    def _text(self, piece: str) -> list[Chunk]:
        if self._spoken and self._broken:
            self._texts += 1
            self._message_id = f"{message_id(self._run_id)}-{self._texts}"
        opening = [] if self._text_open else [text_start(self._message_id)]
        self._text_open = self._begun = self._spoken = True
        self._broken = False
        return [*opening, sanitize(text_content(self._message_id, piece))]

    def _other(self, chunk: Chunk) -> list[Chunk]:
        kind = chunk["type"]
        before: list[Chunk] = []
        if self._text_open:
            before = [text_end(self._message_id)]
        elif not self._begun and kind.startswith(_PUT_ON_A_MESSAGE):
            before = [text_start(self._message_id), text_end(self._message_id)]
        self._text_open = False
        self._begun = self._begun or bool(before) or kind == "TEXT_MESSAGE_START"
        if kind == "TOOL_CALL_START":
            chunk.setdefault("parentMessageId", self._message_id)
            self._spoken = self._broken = False  # after it clients begin a new text by themselves
        elif kind in _BREAKS_A_TEXT:
            self._broken = True
        return [*before, chunk]


_PUT_ON_A_MESSAGE = ("REASONING_", "TOOL_CALL_", "STEP_")
_BREAKS_A_TEXT = frozenset({"REASONING_MESSAGE_CONTENT", "REASONING_ENCRYPTED_VALUE", "TOOL_CALL_RESULT"})
