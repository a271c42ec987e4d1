"""What every dialect does, and the checks that all of them make of what a client posts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias
from uuid import uuid4

import orjson

from durable_chat.chunks import Chunk, plain
from durable_chat.exceptions import BadInput, TooLarge
from durable_chat.messages import Message, Part, Turn

Item: TypeAlias = dict[str, Any]

MAX_NEW_BYTES: Final = 1 << 20
MAX_PARTS: Final = 100
MAX_ID_LENGTH: Final = 128
ROLES: Final = frozenset({"user", "assistant", "system", "developer", "tool"})


class Transcoder(Protocol):
    """The stream of one run in a client's own items. The same chunks always give the same items."""

    @property
    def done(self) -> bool:
        """Whether the run's terminal chunk has been fed: no items follow."""
        ...

    def feed(self, chunk: Chunk) -> list[Item]: ...


class Dialect(Protocol):
    """One family of clients."""

    @property
    def name(self) -> str: ...

    def read(self, body: Mapping[str, Any]) -> Turn:
        """What a posted body asks for. Raises BadInput, or TooLarge for more than 1 MiB of new content."""
        ...

    def messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """The messages as this client's hydration expects them."""
        ...

    def transcoder(self, run_id: str) -> Transcoder: ...


def newest_user_message(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The last user message of the posted history, with an id and within its limits; others are not read."""
    if not isinstance(body, Mapping):
        raise BadInput("The body must be a JSON object.")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadInput('"messages" must be a list of at least one message.')
    for message in messages:
        if not isinstance(message, Mapping):
            raise BadInput("Every message must be an object.")
        if not isinstance(message.get("role"), str) or message["role"] not in ROLES:
            raise BadInput("Every message needs a role: user, assistant, system, developer or tool.")
    newest = next((message for message in reversed(messages) if message["role"] == "user"), None)
    if newest is None:
        raise BadInput('"messages" holds no message of the user.')
    return _limited(newest) | {"id": _message_id(newest)}


def user_message(
    newest: Mapping[str, Any], parts: Any, *, read: Callable[[Mapping[str, Any]], Part]
) -> Message:
    """The newest message as it is stored: ``parts`` are the client's, ``read`` translates one."""
    if not isinstance(parts, list) or not parts:
        raise BadInput("A message needs a list of at least one part.")
    if len(parts) > MAX_PARTS:
        raise BadInput(f"A message has at most {MAX_PARTS} parts.")
    if not all(isinstance(part, Mapping) for part in parts):
        raise BadInput("Every part of a message must be an object.")
    metadata = newest.get("metadata")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise BadInput('"metadata" must be an object.')
    stored = tuple(read(part) for part in parts)
    if all(part["type"] == "text" and not part["content"].strip() for part in stored):
        raise BadInput("The message is empty.")
    return Message(newest["id"], "user", stored, metadata or {})


def _message_id(raw: Mapping[str, Any]) -> str:
    """The id that the client gave, or a new one."""
    given = raw.get("id")
    if given is None:
        return str(uuid4())
    if not isinstance(given, str) or not 0 < len(given) <= MAX_ID_LENGTH or not given.isprintable():
        raise BadInput(f"A message id has 1 to {MAX_ID_LENGTH} printable characters.")
    return given


def options(given: Any) -> dict[str, Any]:
    """What the client sent beside its messages."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise BadInput('"data" must be an object.')
    return _limited(given)


def _limited(value: Mapping[str, Any]) -> dict[str, Any]:
    """The value as plain JSON. Raises TooLarge above 1 MiB, BadInput for what nests too deeply."""
    try:
        checked: dict[str, Any] = plain(dict(value))
        size = len(orjson.dumps(checked))
    except (TypeError, ValueError):
        raise BadInput("The message is no JSON that could be stored.") from None
    if size > MAX_NEW_BYTES:
        raise TooLarge(f"A message may have at most {MAX_NEW_BYTES} bytes.")
    return checked


def text_field(part: Mapping[str, Any], key: str) -> str:
    """A field of a part that must be a text. Raises BadInput."""
    value = part.get(key)
    if not isinstance(value, str):
        raise BadInput(f'A part of type "{part.get("type")}" needs "{key}", a text.')
    return value


def unknown_part(part: Mapping[str, Any], *, known: str) -> BadInput:
    kind = part.get("type")
    named = f'"{kind:.40}"' if isinstance(kind, str) else "without a type"
    return BadInput(f"A user message cannot have a part {named}: it has parts of type {known}.")
