"""Following a JSON stream: frames as batches of parsed messages."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from math import inf

from durable_chat.streams.client.client import StreamClient
from durable_chat.streams.client.frames import SILENCE_SECONDS, frames
from durable_chat.streams.client.values import Batch
from durable_chat.streams.protocol.offsets import START


async def subscribe(
    client: StreamClient,
    path: str,
    *,
    offset: str = START,
    live: bool = True,
    silence: float = SILENCE_SECONDS,
    give_up_after: float = inf,
) -> AsyncGenerator[Batch, None]:
    """Every batch after ``offset``, as ``frames`` gives them: once and in order, whatever connections do.

    Raises ``StreamError`` as it does. A batch without items says that the reader is up to date, or that the
    stream is closed. Close the generator (``aclosing``) to let go of its connection.
    """
    following = frames(
        client.handler, path, after=offset, live=live, silence=silence, give_up_after=give_up_after
    )
    async with aclosing(following):
        async for frame in following:
            batch = Batch.of(frame, after=offset)
            offset = batch.offset
            yield batch
