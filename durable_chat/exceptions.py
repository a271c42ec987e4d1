"""What a request to the chat can be refused with: one tree, each class with its HTTP status."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

FAILED: Final = "The assistant could not finish this answer. Try again."


class ChatError(Exception):
    """Anything the chat refuses or fails at. Its sentence is what views answer: ``{"error": str(error)}``."""

    status: ClassVar[int] = 500

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers: dict[str, str] = dict(headers or {})


class BadInput(ChatError):
    """A body, parameter or id that is malformed. Nothing was written."""

    status = 400


class SignInRequired(ChatError):
    """This site talks to known users only."""

    status = 401


class KeyRequired(ChatError):
    """This site answers with the users' own model keys, and this request brought none."""

    status = 401


class Forbidden(ChatError):
    """A failed CSRF check. Never used for a stranger's conversation, which is NotFound."""

    status = 403


class NotFound(ChatError):
    """No such conversation, or not one that this visitor may know of: the same sentence for both."""

    status = 404


class MethodNotAllowed(ChatError):
    """The route exists, but not with this method."""

    status = 405


class Conflict(ChatError):
    """The request contradicts what the conversation already holds."""

    status = 409


class Busy(Conflict):
    """An answer is being written. ``run_id`` is the run that writes it."""

    def __init__(self, message: str, *, run_id: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, headers=headers)
        self.run_id = run_id


class TooLarge(ChatError):
    """What is new, or the envelope it came in, exceeds its limit."""

    status = 413


class ProviderError(ChatError):
    """A model's failure whose sentence users may read; what else a provider raises is not shown to them."""

    status = 502

    @property
    def public(self) -> str:
        return str(self)


class Unavailable(ChatError):
    """Not now: the same request may be sent again after the seconds that the header Retry-After says."""

    status = 503

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, headers={"Retry-After": "1", **(headers or {})})


def public(error: Exception, prompt: Any) -> str:
    """What users read of what a provider raised, unless the setting ON_ERROR names another function."""
    return error.public if isinstance(error, ProviderError) else FAILED
