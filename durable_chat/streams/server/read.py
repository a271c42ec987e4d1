"""Reading from an offset: the catch-up answer, and the way to the live ones (sections 5.6 and 8)."""

from durable_chat.streams import live
from durable_chat.streams.hub import Hub
from durable_chat.streams.pages import describe, etag
from durable_chat.streams.protocol.errors import BadRequest
from durable_chat.streams.protocol.exchange import Request, Response
from durable_chat.streams.protocol.headers import matches
from durable_chat.streams.protocol.offsets import NOW, START
from durable_chat.streams.server.options import Options


async def read(hub: Hub, request: Request, *, options: Options) -> Response:
    """One page, or a live answer. Raises ``BadRequest`` for parameters that mean nothing."""
    offset, mode = request.query.get("offset"), request.query.get("live")
    if mode is None:
        return await _catch_up(hub, request, offset=START if offset is None else offset, options=options)
    if offset is None:
        raise BadRequest("A live read needs an offset.")
    match mode:
        case "long-poll":
            return await live.long_poll(hub, request, offset=offset, seconds=options.long_poll_seconds)
        case "sse":
            return await live.sse(hub, request, offset=offset, seconds=options.sse_seconds)
    raise BadRequest("live is long-poll or sse.")


async def _catch_up(hub: Hub, request: Request, *, offset: str, options: Options) -> Response:
    frame = await hub.read(request.path, offset)
    headers = describe(frame, cursor=live.cursor(request))
    if offset == NOW:
        return Response(200, {**headers, "cache-control": "no-store"}, frame.body)
    headers["cache-control"], headers["etag"] = options.cache_control, etag(frame)
    known = request.headers.get("if-none-match")
    if known is not None and matches(known, headers["etag"]):
        return Response(304, headers)
    return Response(200, headers, frame.body)
