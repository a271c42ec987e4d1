"""A streams server behind HTTP, as a Handler. The only module of the client that knows httpx."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, urlencode

import aiohttp
import httpx

from durable_chat.streams.protocol.errors import BadRequest, Unavailable
from durable_chat.streams.protocol.exchange import Request, Response
from durable_chat.streams.protocol.headers import STREAM_FORKED_FROM
from durable_chat.streams.protocol.secrets import StreamsSecret

_OF_ONE_HOP = frozenset(
    {"connection", "content-encoding", "content-length", "keep-alive", "te", "trailer", "transfer-encoding"}
)
# Some errors of aiohttp pass through the transport that is built on it.
_TROUBLE = (httpx.HTTPError, aiohttp.ClientError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: for a connection, for a request to go out, between two pieces of an answer, of a live one."""

    connect: float = 5.0
    write: float = 10.0
    read: float = 15.0
    live: float = 75.0  # a live read is rolled, or kept alive, by its server within about 60

    def of(self, request: Request) -> Mapping[str, float]:
        """As a transport takes it."""
        silence = self.live if "live" in request.query else self.read
        return {"connect": self.connect, "write": self.write, "read": silence}


class HTTPHandler:
    """Carries requests to the service at ``base_url``. Bodies of live reads are streamed, others are read.

    ``transport`` returns the running loop's. It is asked itself: an ``AsyncClient`` in front of it costs as
    much again, for redirects and cookies that are not wanted here. ``token`` and ``headers`` are the
    service's and are never shown; a ``read_token`` goes with GET and HEAD instead. Whatever keeps the
    service from answering is Unavailable, also in the middle of a body. Redirects are not followed, and
    nothing is asked to be compressed. A caller that is cancelled, or closes the response, gives the
    connection up at once.
    """

    def __init__(
        self,
        base_url: str,
        transport: Callable[[], httpx.AsyncBaseTransport],
        *,
        token: StreamsSecret | None = None,
        read_token: StreamsSecret | None = None,
        headers: Mapping[str, str] | None = None,
        patience: Patience | None = None,
    ) -> None:
        url = httpx.URL(base_url)
        if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment:
            raise ValueError("The base URL of a stream service is http(s)://host/…")
        self._url = url
        self._root = url.raw_path.decode().rstrip("/")
        self._transport = transport
        self._patience = patience or Patience()
        common = {name.lower(): value for name, value in (headers or {}).items()}
        common["accept-encoding"] = "identity"
        self._write_headers = {**common, **_bearer(token)}
        self._read_headers = {**common, **_bearer(read_token or token)}

    def __repr__(self) -> str:
        return f"HTTPHandler({self._url.host!r})"

    async def __call__(self, request: Request) -> Response:
        """Send ``request``. Raises Unavailable, and BadRequest for a path that would leave the base URL."""
        outgoing = self._outgoing(request)
        try:
            # Not every transport times the writing, so all that comes before the answer is timed as one.
            async with asyncio.timeout(sum(outgoing.extensions["timeout"].values())):
                response = await self._transport().handle_async_request(outgoing)
            body = _Body(response) if "live" in request.query else await _whole(response)
        except _TROUBLE as error:
            raise _unavailable(error) from None
        return Response(response.status_code, _headers(response), body)

    def _outgoing(self, request: Request) -> httpx.Request:
        own = self._read_headers if request.method in {"GET", "HEAD"} else self._write_headers
        # One order, so that caches see one URL (section 10.1).
        query = urlencode(sorted(request.query.items()))
        path = f"{self._root}/{_quoted(request.path)}"
        return httpx.Request(
            request.method,
            self._url.copy_with(raw_path=(f"{path}?{query}" if query else path).encode()),
            headers={**self._named(request.headers), **own},
            content=request.body or None,
            extensions={"timeout": self._patience.of(request)},
        )

    def _named(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The headers, with the stream to fork named by its URL's whole path (section 4.2)."""
        source = headers.get(STREAM_FORKED_FROM)
        if source is None:
            return headers
        return {**headers, STREAM_FORKED_FROM: f"{self._root}/{_quoted(source)}"}


def _headers(response: httpx.Response) -> dict[str, str]:
    """Those that are not of this hop. Decoded here: httpx guesses the encoding anew for each of them."""
    decoded = {
        name.lower().decode("latin-1"): value.decode("latin-1") for name, value in response.headers.raw
    }
    return {name: value for name, value in decoded.items() if name not in _OF_ONE_HOP}


class _Body:
    """A body that arrives in pieces; closing it closes the connection unless it was read to its end."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._pieces = self._read()

    def __aiter__(self) -> AsyncGenerator[bytes, None]:
        return self._pieces

    async def aclose(self) -> None:
        await self._response.aclose()
        await self._pieces.aclose()

    async def _read(self) -> AsyncGenerator[bytes, None]:
        try:
            async for piece in self._response.aiter_raw():
                yield piece
        except _TROUBLE as error:
            raise _unavailable(error) from None


async def _whole(response: httpx.Response) -> bytes:
    try:
        return b"".join([piece async for piece in response.aiter_raw()])
    finally:
        await response.aclose()


def _bearer(token: StreamsSecret | None) -> Mapping[str, str]:
    return {"authorization": f"Bearer {token.reveal()}"} if token else {}


@lru_cache(maxsize=1024)
def _quoted(path: str) -> str:
    segments = path.split("/")
    if any(segment in {"", ".", ".."} for segment in segments):
        raise BadRequest("A stream's path has no empty segments and no dots alone.")
    return "/".join(quote(segment, safe="") for segment in segments)


def _unavailable(error: Exception) -> Unavailable:
    """Names the kind of trouble only: texts of errors quote URLs, and with them credentials."""
    return Unavailable(f"The stream service did not answer ({type(error).__name__}).")
