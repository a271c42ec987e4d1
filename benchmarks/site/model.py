"""The model of all who are compared: pieces that say when they were made, at the pace that was asked for."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Final

from durable_chat.messages import Prompt

STAMP: Final = "@at"
DIGITS: Final = 20
_ASKED: Final = re.compile(r"pieces=(\d+) pause=(\d+)")


async def answer(prompt: Prompt) -> AsyncIterator[str]:
    """What the newest message asks for."""
    async for piece in pieces(prompt.messages[-1].text()):
        yield piece


async def pieces(asked: str) -> AsyncIterator[str]:
    """``pieces=N pause=MS``: so many, and so many milliseconds between two."""
    found = _ASKED.search(asked)
    assert found is not None
    for number in range(int(found[1])):
        if number:
            await asyncio.sleep(int(found[2]) / 1000)
        yield f"{STAMP}{time.monotonic_ns():0{DIGITS}d} and then the next few words"
