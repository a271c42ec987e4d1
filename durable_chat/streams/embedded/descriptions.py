"""A stream in words and figures, for people: the command and the admin say the same."""

from datetime import UTC, datetime
from typing import Any

from durable_chat.streams.protocol.offsets import encode
from durable_chat.streams.stores.catalogue import Listed


def describe(listed: Listed) -> dict[str, Any]:
    """What there is to say about a stream, as JSON holds it.

    ``size`` is in bytes, ``length`` in messages of a JSON stream or bytes of any other, ``ttl`` in seconds;
    moments are RFC 3339.
    """
    stream = listed.stream
    return {
        "path": listed.path,
        "contentType": stream.content_type,
        "size": listed.size,
        "length": stream.tail,
        "tail": encode(stream.tail),
        "closed": stream.closed,
        "ttl": stream.expiry.ttl,
        "expiresAt": stream.expiry.expires_at,
        "ends": _moment(stream.ends),
        "used": _moment(stream.touched),
        "forkedFrom": stream.fork and stream.fork.source,
        "forks": stream.forks,
    }


def _moment(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return None  # a time to live may reach beyond the last year that a date can have
