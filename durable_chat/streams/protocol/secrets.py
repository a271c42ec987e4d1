"""Texts that are shown to nobody. Each kind is a class of its own, so that mixing two is a type error."""

import hmac
from typing import NoReturn


class Secret:
    """An opaque text: false when empty, equal to its like, and no part of any repr, f-string, JSON or pickle.

    Not a dataclass on purpose: what takes dataclasses apart (orjson, `asdict`) would find the text.
    """

    __slots__ = ("__text",)

    def __init__(self, text: str = "") -> None:
        self.__text = text

    def reveal(self) -> str:
        """The text itself, for the one place that sends it."""
        return self.__text

    def __bool__(self) -> bool:
        return bool(self.__text)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return hmac.compare_digest(self.__text.encode(), other.reveal().encode())

    def __hash__(self) -> int:
        return hash((type(self), self.__text))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'set' if self.__text else 'empty'}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"A {type(self).__name__} is kept in memory only: it cannot be pickled or copied.")


class StreamsSecret(Secret):
    """Auth layer 1: what a client of a streams service shows to it, as a bearer token."""

    __slots__ = ()
