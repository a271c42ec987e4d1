"""What a host may tune."""

from dataclasses import dataclass
from typing import Final

from durable_chat.streams.live import LONG_POLL_SECONDS, SSE_SECONDS

PAGE_BYTES: Final = 1024 * 1024
MAX_BODY: Final = 16 * 1024 * 1024
PRIVATE: Final = "private, no-cache"


@dataclass(frozen=True, slots=True)
class Options:
    """In seconds and bytes. ``cache_control`` is that of catch-up answers; by default streams are private."""

    sse_seconds: float = SSE_SECONDS
    long_poll_seconds: float = LONG_POLL_SECONDS
    max_body: int = MAX_BODY
    cache_control: str = PRIVATE
