"""How long a stream lives: a sliding time to live, or a moment at which it ends (section 5.1)."""

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Final, NamedTuple

from durable_chat.streams.protocol.errors import BadRequest
from durable_chat.streams.protocol.headers import STREAM_EXPIRES_AT, STREAM_TTL

_TTL: Final = re.compile(r"0|[1-9][0-9]{0,14}")
_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)",
    re.ASCII,
)


class Expiry(NamedTuple):
    """At most one of the two is set: ``ttl`` in seconds, ``expires_at`` as the RFC 3339 text that came."""

    ttl: int | None = None
    expires_at: str | None = None

    def same_as(self, other: "Expiry") -> bool:
        """Whether both mean the same: two spellings of one moment do."""
        return self.ttl == other.ttl and self._moment() == other._moment()

    def ends(self, *, touched: float) -> float | None:
        """When a stream that was last used at ``touched`` expires, if it ever does (both Unix seconds)."""
        if self.ttl is None:
            return self._moment()
        # Reads note their time only once per TTL/10 (see `touch_due`), so that much is granted on top: a
        # stream may live a little longer than it asked for, never shorter.
        return touched + self.ttl * 1.1

    def is_over(self, *, touched: float, now: float) -> bool:
        """Whether a stream that was last used at ``touched`` has expired at ``now`` (both Unix seconds)."""
        ends = self.ends(touched=touched)
        return ends is not None and now >= ends

    def touch_due(self, *, touched: float, now: float) -> bool:
        """Whether a read at ``now`` is worth noting, which costs a write."""
        return self.ttl is not None and now >= touched + self.ttl / 10

    def _moment(self) -> float | None:
        return None if self.expires_at is None else _timestamp(self.expires_at)


def parse(headers: Mapping[str, str]) -> Expiry:
    """What a PUT asks for. Raises ``BadRequest`` when it is malformed or asks for both."""
    ttl, expires_at = headers.get(STREAM_TTL), headers.get(STREAM_EXPIRES_AT)
    if ttl is not None and expires_at is not None:
        raise BadRequest("Stream-TTL and Stream-Expires-At exclude each other.")
    if ttl is not None and _TTL.fullmatch(ttl) is None:
        raise BadRequest("Stream-TTL is a number of seconds, in plain digits without a leading zero.")
    if expires_at is not None:
        _timestamp(expires_at)
    return Expiry(None if ttl is None else int(ttl), expires_at)


def describe(expiry: Expiry) -> dict[str, str]:
    """The headers that tell a reader of it."""
    if expiry.ttl is not None:
        return {STREAM_TTL: str(expiry.ttl)}
    return {} if expiry.expires_at is None else {STREAM_EXPIRES_AT: expiry.expires_at}


def _timestamp(text: str) -> float:
    if _RFC3339.fullmatch(text) is not None:
        with suppress(ValueError, OverflowError):  # it looks like a date and is none
            return datetime.fromisoformat(text.upper()).timestamp()
    raise BadRequest("Stream-Expires-At is an RFC 3339 timestamp.")
