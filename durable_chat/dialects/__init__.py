"""What each family of clients speaks, one room each. Which one a body is in is told by the body."""

from collections.abc import Mapping
from typing import Any

from durable_chat.dialects.ai_sdk import AISDK
from durable_chat.dialects.base import Dialect, Item, Transcoder
from durable_chat.dialects.tanstack import TanStack
from durable_chat.exceptions import BadInput

__all__ = ["AISDK", "Dialect", "Item", "TanStack", "Transcoder", "detect", "named"]


def detect(body: Mapping[str, Any]) -> Dialect:
    """The dialect of a posted body: the AI SDK always sends a trigger, TanStack never does."""
    if not isinstance(body, Mapping):
        raise BadInput("The body must be a JSON object.")
    return AISDK() if "trigger" in body else TanStack()


def named(name: str) -> Dialect:
    """The dialect of this name (``?as=``). Raises BadInput."""
    for dialect in (TanStack(), AISDK()):
        if dialect.name == name:
            return dialect
    raise BadInput('"as" must be "tanstack" or "ai-sdk".')
