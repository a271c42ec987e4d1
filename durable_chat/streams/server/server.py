"""The server's one function, and the way from a method to what carries it out."""

from durable_chat.streams.hub import Hub, StoreSource
from durable_chat.streams.live import LONG_POLL_SECONDS, SSE_SECONDS
from durable_chat.streams.protocol.errors import (
    BadRequest,
    MethodNotAllowed,
    NotImplementedHere,
    PayloadTooLarge,
    StreamError,
    StreamNotFound,
    to_response,
)
from durable_chat.streams.protocol.exchange import Request, Response
from durable_chat.streams.protocol.headers import LONGEST_NAME, PREFLIGHT
from durable_chat.streams.server.append import append
from durable_chat.streams.server.lifecycle import create, delete, head
from durable_chat.streams.server.options import MAX_BODY, PAGE_BYTES, PRIVATE, Options
from durable_chat.streams.server.read import read
from durable_chat.streams.stores.base import StreamStore

_DOTS = frozenset({".", ".."})
_RESERVED = "__ds"


class StreamServer:
    """The Durable Streams protocol over a store. ``handle`` is a ``Handler``.

    It holds nothing but while somebody reads live: whoever made the store closes it.
    """

    def __init__(
        self,
        store: StreamStore,
        *,
        sse_seconds: float = SSE_SECONDS,
        long_poll_seconds: float = LONG_POLL_SECONDS,
        page_bytes: int = PAGE_BYTES,
        max_body: int = MAX_BODY,
        cache_control: str = PRIVATE,
    ) -> None:
        self.store = store
        self.hub = Hub(StoreSource(store, page_bytes))
        self.options = Options(sse_seconds, long_poll_seconds, max_body, cache_control)

    async def handle(self, request: Request) -> Response:
        """Answer one request; a refusal is an answer too. Raises only what nobody foresaw."""
        try:
            response = await self._answer(request)
        except StreamError as error:
            response = to_response(error)
        return response if request.method != "HEAD" else response._replace(body=b"")

    async def _answer(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(204, PREFLIGHT)
        _check_path(request.path)
        if len(request.body) > self.options.max_body:
            raise PayloadTooLarge
        match request.method:
            case "GET":
                return await read(self.hub, request, options=self.options)
            case "POST":
                return await append(self.store, request)
            case "PUT":
                return await create(self.store, request)
            case "HEAD":
                return await head(self.store, request)
            case "DELETE":
                return await delete(self.store, request)
        raise MethodNotAllowed(headers={"allow": PREFLIGHT["access-control-allow-methods"]})


def _check_path(path: str) -> None:
    """Refuse what is no stream's name: names are only compared here, but proxies read them as paths."""
    if not path:
        raise StreamNotFound
    segments = path.split("/")
    if len(path) > LONGEST_NAME or not path.isprintable() or not _DOTS.isdisjoint(segments):
        raise BadRequest(
            f"A stream's path has at most {LONGEST_NAME} printable characters and no dot segments."
        )
    if segments[0] == _RESERVED:
        raise NotImplementedHere("Subscriptions are not offered here.")
