"""A streams server behind HTTP, as a Handler."""

import re
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable, Mapping, Set
from functools import lru_cache
from urllib.parse import quote, urlencode

import httpx

from durable_chat.streams.client.transport import Origin, Outgoing, Patience, Transport
from durable_chat.streams.protocol.errors import BadRequest, Unavailable
from durable_chat.streams.protocol.exchange import Body, Request, Response
from durable_chat.streams.protocol.headers import BROWSER, PREFLIGHT, STREAM_FORKED_FROM
from durable_chat.streams.protocol.secrets import StreamsSecret

_OF_ONE_HOP = {
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
# Nor what every server says of itself, and to browsers: that is the door's.
_KEPT_BACK = {*_OF_ONE_HOP, "content-encoding", "date", "server", *BROWSER, *PREFLIGHT}
_PORTS = {"http": 80, "https": 443}
_UNSENDABLE = re.compile(r"[^\t -~\x80-\xff]")


class HTTPHandler:
    """Carries requests to the service at ``base_url``. Bodies of live reads are streamed, others are read.

    ``transport`` returns the running loop's. ``token`` and ``headers`` are the service's and are never shown;
    a ``read_token`` goes with GET and HEAD instead. Whatever keeps the service from answering is Unavailable,
    also in the middle of a body. Redirects are not followed, and nothing is asked to be compressed. A caller
    that is cancelled, or closes the response, gives the connection up at once.
    """

    def __init__(
        self,
        base_url: str,
        transport: Callable[[], Transport],
        *,
        token: StreamsSecret | None = None,
        read_token: StreamsSecret | None = None,
        headers: Mapping[str, str] | None = None,
        patience: Patience | None = None,
    ) -> None:
        url = httpx.URL(base_url)
        if url.scheme not in _PORTS or not url.host or url.query or url.fragment:
            raise ValueError("The base URL of a stream service is http(s)://host/…")
        self._origin = Origin(url.scheme, url.raw_host.decode(), url.port or _PORTS[url.scheme])
        self._root = url.raw_path.decode().rstrip("/")
        self._transport = transport
        self._patience = patience or Patience()
        common = {"host": url.netloc.decode(), **_basic(url)}
        common |= {name.lower(): value for name, value in (headers or {}).items()}
        common["accept-encoding"] = "identity"
        self._write_headers = {**common, **_bearer(token)}
        self._read_headers = {**common, **_bearer(read_token or token)}
        if not (_is_sendable(self._write_headers) and _is_sendable(self._read_headers)):
            raise ValueError("A token or header for the stream service holds what headers cannot hold.")

    def __repr__(self) -> str:
        return f"HTTPHandler({self._origin.host!r})"

    async def __call__(self, request: Request) -> Response:
        """Send ``request``. Raises Unavailable, and BadRequest for a path that would leave the base URL."""
        outgoing = self._outgoing(request)
        try:
            response = await self._transport().send(outgoing)
            body = response.body
            if not isinstance(body, bytes):
                body = _Pieces(body) if outgoing.live else await _whole(response)
        except OSError as error:
            raise _unavailable(error) from None
        return Response(response.status, _without(_KEPT_BACK, response.headers), body)

    def _outgoing(self, request: Request) -> Outgoing:
        own = self._read_headers if request.method in {"GET", "HEAD"} else self._write_headers
        # One order, so that caches see one URL (section 10.1).
        query = urlencode(sorted(request.query.items()))
        path = f"{self._root}/{_quoted(request.path)}"
        return Outgoing(
            self._origin,
            request.method,
            f"{path}?{query}" if query else path,
            {**self._named(request.headers), **own},
            request.body,
            "live" in request.query,
            self._patience,
        )

    def _named(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The headers to pass on, the stream to fork named by its URL's whole path (section 4.2)."""
        if not headers:
            return headers
        if not _is_sendable(headers):
            raise BadRequest("A header holds what headers cannot hold.")
        passed_on = _without(_OF_ONE_HOP, headers)
        source = headers.get(STREAM_FORKED_FROM)
        if source is not None:
            passed_on[STREAM_FORKED_FROM] = f"{self._root}/{_quoted(source)}"
        return passed_on


class _Pieces:
    """A body whose breaks are Unavailable."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._pieces = self._read()

    def __aiter__(self) -> AsyncGenerator[bytes, None]:
        return self._pieces

    async def aclose(self) -> None:
        await self._body.aclose()
        await self._pieces.aclose()

    async def _read(self) -> AsyncGenerator[bytes, None]:
        try:
            async for piece in self._body:
                yield piece
        except OSError as error:
            raise _unavailable(error) from None


async def _whole(response: Response) -> bytes:
    async with response:
        return await response.read()


def _is_sendable(headers: Mapping[str, str]) -> bool:
    return _UNSENDABLE.search("".join([*headers, *headers.values()])) is None


def _without(names: Set[str], headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in names}


def _bearer(token: StreamsSecret | None) -> Mapping[str, str]:
    return {"authorization": f"Bearer {token.reveal()}"} if token else {}


def _basic(url: httpx.URL) -> Mapping[str, str]:
    if not url.userinfo:
        return {}
    return {"authorization": f"Basic {b64encode(f'{url.username}:{url.password}'.encode()).decode()}"}


@lru_cache(maxsize=1024)
def _quoted(path: str) -> str:
    segments = path.split("/")
    if any(segment in {"", ".", ".."} for segment in segments):
        raise BadRequest("A stream's path has no empty segments and no dots alone.")
    return "/".join(quote(segment, safe="") for segment in segments)


def _unavailable(error: Exception) -> Unavailable:
    """Names the kind of trouble only: texts of errors quote URLs, and with them credentials."""
    return Unavailable(f"The stream service did not answer ({type(error).__name__}).")
