"""What is said, what one send asks for, and what a provider is asked."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, Self, TypeAlias

from durable_chat.chunks import Chunk, text_content, text_end, text_start
from durable_chat.keys import ModelKey

Part: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, in the shape of TanStack's UIMessage.

    ``role`` is user, assistant or system. Parts are ``text{content}``,
    ``thinking{content, stepId?, signature?}``, ``tool-call{id, name, arguments, input?, state, output?}``,
    ``tool-result{toolCallId, content, state, error?}`` and
    ``image|audio|video|document{source: {type: "url" | "data", value, mimeType?}}``.
    """

    id: str
    role: str
    parts: tuple[Part, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None

    def text(self) -> str:
        """What the text parts say, joined."""
        return "".join(str(part.get("content", "")) for part in self.parts if part.get("type") == "text")

    def as_json(self) -> dict[str, Any]:
        """TanStack's UIMessage."""
        message: dict[str, Any] = {"id": self.id, "role": self.role, "parts": list(self.parts)}
        if self.created_at is not None:
            message["createdAt"] = self.created_at.isoformat()
        return message | ({"metadata": dict(self.metadata)} if self.metadata else {})


@dataclass(frozen=True, slots=True)
class Author:
    """A user who writes, as the others in the conversation see them."""

    id: Any
    name: str


@dataclass(frozen=True, slots=True)
class Turn:
    """What one send asks for. ``trigger`` is "send" for clients that do not say whether they regenerate."""

    message: Message
    trigger: Literal["submit", "regenerate", "send"]
    options: Mapping[str, Any]
    dialect: str
    author: Author | None = None

    def signed(self, author: Author | None) -> Self:
        """The turn as this author's: the message's metadata say who wrote it, whatever the client said."""
        metadata = {key: value for key, value in self.message.metadata.items() if key != "author"}
        if author is not None:
            metadata["author"] = {"id": str(author.id), "name": author.name}
        return replace(self, message=replace(self.message, metadata=metadata), author=author)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a provider answers: the visible history, the newest user message last."""

    conversation_id: str
    run_id: str
    messages: tuple[Message, ...]
    options: Mapping[str, Any]
    key: ModelKey = ModelKey()
    own_keys: Mapping[str, ModelKey] = field(default_factory=dict)

    @property
    def api_key(self) -> str:
        """Auth layer 2, for the call of the model and nothing else: the user's own key, else the site's."""
        return self.key.reveal()

    def quotes_key(self, text: str) -> bool:
        """Whether a text that others would see quotes a key of this run."""
        return any(key and key.reveal() in text for key in (self.key, *self.own_keys.values()))


def echo(message: Message) -> list[Chunk]:
    """The user's message as it enters the stream: its text alone, as the reference server writes it.

    Who wrote it is in the metadata: clients merge a chunk's metadata into their message's.
    """
    at = message.created_at
    timestamp = int(at.timestamp() * 1000) if at is not None else time.time_ns() // 1_000_000
    text = message.text()
    said = [text_content(message.id, text)] if text else []
    signed = {"metadata": {"author": message.metadata["author"]}} if "author" in message.metadata else {}
    chunks = [text_start(message.id, message.role) | signed, *said, text_end(message.id)]
    return [chunk | {"model": "client", "timestamp": timestamp} for chunk in chunks]
