"""A streams server behind HTTP, as a Handler. The only module of the client that knows httpx."""

from collections.abc import AsyncGenerator, Callable, Mapping
from urllib.parse import quote

import httpx

from durable_chat.streams.protocol.errors import BadRequest, Unavailable
from durable_chat.streams.protocol.exchange import Request, Response
from durable_chat.streams.protocol.headers import STREAM_FORKED_FROM
from durable_chat.streams.protocol.secrets import StreamsSecret

_READ, _LIVE_READ = 15.0, 75.0  # seconds; a live read is rolled by its server after about 60
_OF_ONE_HOP = frozenset(
    {"connection", "content-encoding", "content-length", "keep-alive", "te", "trailer", "transfer-encoding"}
)


class HTTPHandler:
    """Carries requests to the streams service at ``base_url``; bodies of GET are streamed, others are read.

    ``client`` returns the AsyncClient of the running loop. ``token`` and ``headers`` are the service's and
    are never shown. Whatever keeps the service from answering is Unavailable, also in the middle of a body.
    Redirects are not followed, and nothing is asked to be compressed.
    """

    def __init__(
        self,
        base_url: str,
        client: Callable[[], httpx.AsyncClient],
        *,
        token: StreamsSecret | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        url = httpx.URL(base_url)
        if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment:
            raise ValueError("The base URL of a stream service is http(s)://host/…")
        self._base_url = base_url.rstrip("/")
        self._client = client
        self._headers = {
            **{name.lower(): value for name, value in (headers or {}).items()},
            **({"authorization": f"Bearer {token.reveal()}"} if token else {}),
            "accept-encoding": "identity",
        }

    def __repr__(self) -> str:
        return f"HTTPHandler({httpx.URL(self._base_url).host!r})"

    async def __call__(self, request: Request) -> Response:
        """Send ``request``. Raises Unavailable, and BadRequest for a path that would leave the base URL."""
        client = self._client()
        outgoing = client.build_request(
            request.method,
            f"{self._base_url}/{_quoted(request.path)}",
            params=sorted(request.query.items()),  # one order, so that caches see one URL (section 10.1)
            headers={**self._named(request.headers), **self._headers},
            content=request.body or None,
            timeout=_timeout(request),
        )
        streamed = request.method == "GET"
        try:
            response = await client.send(outgoing, stream=streamed, follow_redirects=False)
        except httpx.HTTPError as error:
            raise _unavailable(error) from None
        headers = {name: value for name, value in response.headers.items() if name not in _OF_ONE_HOP}
        return Response(response.status_code, headers, _Body(response) if streamed else response.content)

    def _named(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The headers, with the stream to fork named by its URL's whole path (section 4.2)."""
        source = headers.get(STREAM_FORKED_FROM)
        if source is None:
            return headers
        root = httpx.URL(self._base_url).raw_path.decode().rstrip("/")
        return {**headers, STREAM_FORKED_FROM: f"{root}/{_quoted(source)}"}


class _Body:
    """A body that arrives in pieces; closing it closes the connection, read or not."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._pieces = self._read()

    def __aiter__(self) -> AsyncGenerator[bytes, None]:
        return self._pieces

    async def aclose(self) -> None:
        try:
            await self._pieces.aclose()
        finally:
            await self._response.aclose()

    async def _read(self) -> AsyncGenerator[bytes, None]:
        try:
            async for piece in self._response.aiter_bytes():
                yield piece
        except httpx.HTTPError as error:
            raise _unavailable(error) from None


def _quoted(path: str) -> str:
    segments = path.split("/")
    if any(segment in {"", ".", ".."} for segment in segments):
        raise BadRequest("A stream's path has no empty segments and no dots alone.")
    return "/".join(quote(segment, safe="") for segment in segments)


def _timeout(request: Request) -> httpx.Timeout:
    return httpx.Timeout(connect=5, write=10, pool=5, read=_LIVE_READ if "live" in request.query else _READ)


def _unavailable(error: httpx.HTTPError) -> Unavailable:
    """Names the kind of trouble only: httpx puts URLs, and with them credentials, into its texts."""
    return Unavailable(f"The stream service did not answer ({type(error).__name__}).")
