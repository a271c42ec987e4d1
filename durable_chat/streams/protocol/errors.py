"""One tree of errors, two maps: the server turns an error into a response, the client turns it back."""

from collections.abc import Mapping
from typing import ClassVar

import orjson

from durable_chat.streams.protocol.exchange import Response


class StreamError(Exception):
    """Anything a streams server refuses or fails at. ``status`` is what it is on the wire."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "stream_error"
    sentence: ClassVar[str] = "The stream service failed."

    def __init__(self, message: str = "", *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message or self.sentence)
        self.headers: dict[str, str] = dict(headers or {})


class BadRequest(StreamError):
    """A malformed header, parameter or body."""

    status, code, sentence = 400, "bad_request", "The request is malformed."


class InvalidOffset(BadRequest):
    """An offset that this server cannot have issued (section 8)."""

    code, sentence = "invalid_offset", "The offset is malformed."


class InvalidEpochStart(BadRequest):
    """A new producer epoch that does not begin at seq 0 (section 5.2.1)."""

    code, sentence = "invalid_epoch_start", "A new producer epoch must start at seq 0."


class Unauthorized(StreamError):
    """No token, or one that is not known."""

    status, code, sentence = 401, "unauthorized", "A bearer token is required."


class Forbidden(StreamError):
    """A token that may not do this. Not a fence: see StaleEpoch."""

    status, code, sentence = 403, "forbidden", "This token may not do that."


class StaleEpoch(StreamError):
    """The fence: another writer holds a higher epoch (section 5.2.1). ``epoch`` is the current one."""

    status, code, sentence = 403, "stale_epoch", "A newer producer epoch has taken over."

    @property
    def epoch(self) -> int:
        return int(self.headers["producer-epoch"])


class StreamNotFound(StreamError):
    """No stream at this path."""

    status, code, sentence = 404, "not_found", "There is no stream at this path."


class MethodNotAllowed(StreamError):
    """A method that streams do not have."""

    status, code, sentence = 405, "method_not_allowed", "Streams know GET, HEAD, PUT, POST and DELETE."


class Conflict(StreamError):
    """The request contradicts the stream's state."""

    status, code, sentence = 409, "conflict", "The request conflicts with the state of the stream."


class StreamExists(Conflict):
    """A stream with another configuration is at this path (section 5.1)."""

    code, sentence = "stream_exists", "A stream with another configuration exists at this path."


class SourceGone(Conflict):
    """The stream to fork has been deleted, and is kept only for the forks that it has (section 4.2)."""

    code, sentence = "source_gone", "The stream to fork has been deleted."


class StreamClosed(Conflict):
    """The stream takes no more appends (section 4.1)."""

    code, sentence = "stream_closed", "The stream is closed."


class ContentTypeMismatch(Conflict):
    """The append's content type is not the stream's (section 5.2)."""

    code, sentence = "content_type_mismatch", "The content type is not the stream's."


class SequenceRegression(Conflict):
    """``Stream-Seq`` did not increase (section 5.2)."""

    code, sentence = "sequence_regression", "Stream-Seq must increase."


class ProducerGap(Conflict):
    """A producer's batch is missing before this one (section 5.2.1)."""

    code, sentence = "producer_gap", "A batch of this producer is missing before this one."


class StreamGone(StreamError):
    """Deleted but still referenced, or read before the earliest retained position."""

    status, code, sentence = 410, "gone", "The stream is gone."


class PayloadTooLarge(StreamError):
    """The body exceeds the server's limit."""

    status, code, sentence = 413, "payload_too_large", "The body is too large."


class NotImplementedHere(StreamError):
    """A part of the protocol that this server does not offer."""

    status, code, sentence = 501, "not_implemented", "This server does not offer that."


class Unavailable(StreamError):
    """The service cannot answer now; the same request may be sent again after ``retry_after`` seconds."""

    status, code, sentence = 503, "unavailable", "The stream service is unavailable, try again."

    @property
    def retry_after(self) -> float:
        try:
            return max(0.0, float(self.headers.get("retry-after", "1")))
        except ValueError:
            return 1.0


class TooManyRequests(Unavailable):
    """Rate limited."""

    status, code, sentence = 429, "too_many_requests", "Too many requests, try again later."


def to_response(error: StreamError) -> Response:
    """What a server answers for this error: a JSON sentence, the error's own headers, never cached."""
    headers = {
        "content-type": "application/json",
        "cache-control": "no-store",
        **({"retry-after": "1"} if isinstance(error, Unavailable) else {}),
        **error.headers,
    }
    return Response(error.status, headers, orjson.dumps({"error": str(error), "code": error.code}))


_BY_STATUS: dict[int, type[StreamError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: StreamNotFound,
    405: MethodNotAllowed,
    409: Conflict,
    410: StreamGone,
    413: PayloadTooLarge,
    429: TooManyRequests,
    501: NotImplementedHere,
}


def from_response(status: int, headers: Mapping[str, str]) -> StreamError:
    """The error that an answer of 4xx or 5xx stands for, told by status and protocol headers alone.

    Bodies are not read: servers word them differently, and an upstream's text is not ours to repeat.
    """
    kept = {name: value for name, value in headers.items() if name in _KEPT}
    if status == 403 and "producer-epoch" in headers:
        return StaleEpoch(headers=kept)  # without the header a 403 is an auth failure, not a fence
    if status == 409 and "producer-expected-seq" in headers:
        return ProducerGap(headers=kept)
    if status == 409 and headers.get("stream-closed", "").lower() == "true":
        return StreamClosed(headers=kept)
    if (status >= 500 and status != 501) or status in _OF_A_PROXY:
        return Unavailable(headers=kept)
    return _BY_STATUS.get(status, BadRequest)(headers=kept)


_OF_A_PROXY = frozenset({408, 425})  # it has lost patience: nothing is wrong with the request itself

_KEPT = frozenset(
    {
        "producer-epoch",
        "producer-expected-seq",
        "producer-received-seq",
        "retry-after",
        "stream-closed",
        "stream-next-offset",
    }
)
