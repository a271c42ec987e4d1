"""How long to wait before the same request is sent again."""

import asyncio
import random
from math import inf

from durable_chat.streams.protocol.errors import Unavailable

_FIRST, _LONGEST, _LONGEST_ASKED_FOR = 0.1, 5.0, 60.0  # seconds


class Backoff:
    """Pauses between attempts; gives up ``give_up_after`` seconds after the last success."""

    def __init__(self, give_up_after: float = inf) -> None:
        self._give_up_after = give_up_after
        self.reset()

    def reset(self) -> None:
        """Something succeeded: the next pause is short again."""
        self._pauses = 0
        self._since = asyncio.get_running_loop().time()

    async def pause(self, error: Unavailable) -> None:
        """Wait before the next attempt. Raises ``error`` if that would be too late."""
        delay = delay_before(self._pauses, error)
        if asyncio.get_running_loop().time() + delay > self._since + self._give_up_after:
            raise error
        self._pauses += 1
        await asyncio.sleep(delay)


def delay_before(pauses: int, error: Unavailable) -> float:
    """Seconds to wait after ``error`` and so many earlier waits: doubling, jittered, as long as asked for."""
    delay = min(_LONGEST, _FIRST * 2.0 ** min(pauses, 10)) * random.uniform(0.5, 1)  # noqa: S311
    if "retry-after" not in error.headers:
        return delay
    return max(delay, min(error.retry_after, _LONGEST_ASKED_FOR))
