"""Cursors: what live readers echo so that a cache cannot serve them one answer for ever (section 10.1)."""

from typing import Final

_EPOCH: Final = 1_728_432_000  # October 9, 2024 00:00:00 UTC
_INTERVAL: Final = 20  # seconds
_LONGEST: Final = 18  # digits of a cursor that is taken seriously

MAX_JITTER: Final = 3600 // _INTERVAL
"""The widest step, in intervals, that a cursor is moved by to get ahead of an echoed one."""


def issue(echoed: str | None, *, now: float, jitter: int) -> str:
    """The cursor to send at ``now`` (Unix seconds), strictly above the one that the reader echoed.

    ``jitter`` is a random number in 1..MAX_JITTER, used only when the clock has not moved past the echo. An
    echo that no server can have sent counts as none.
    """
    current = int((now - _EPOCH) // _INTERVAL)
    seen = _parse(echoed)
    return str(current if seen is None or seen < current else seen + jitter)


def _parse(echoed: str | None) -> int | None:
    if echoed is None or len(echoed) > _LONGEST or not (echoed.isascii() and echoed.isdigit()):
        return None
    return int(echoed)
