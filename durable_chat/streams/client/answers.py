"""What a service's answers mean: an error, a tail, an end."""

from collections.abc import Mapping

from durable_chat.streams.protocol.errors import StreamError, Unavailable, from_response
from durable_chat.streams.protocol.exchange import Handler, Request, Response
from durable_chat.streams.protocol.headers import STREAM_CLOSED, STREAM_NEXT_OFFSET, STREAM_UP_TO_DATE


async def opened(handler: Handler, request: Request) -> Response:
    """The answer to ``request``, for the caller to close; raises what one but 2xx and 304 stands for."""
    response = await handler(request)
    if 200 <= response.status < 300 or response.status == 304:
        return response
    await response.aclose()
    raise _error(response)


def tail(response: Response) -> str:
    """Its absence means that somebody else answered, a proxy's login page for one: nothing was taken."""
    offset = response.headers.get(STREAM_NEXT_OFFSET)
    if not offset:
        raise Unavailable("The answer carries no Stream-Next-Offset; is this a Durable Streams service?")
    return offset


def is_closed(response: Response) -> bool:
    return _flag(response.headers, STREAM_CLOSED)


def is_up_to_date(response: Response) -> bool:
    """Nothing follows a closed stream either."""
    return is_closed(response) or _flag(response.headers, STREAM_UP_TO_DATE)


def _flag(headers: Mapping[str, str], name: str) -> bool:
    return headers.get(name, "").lower() == "true"


def _error(response: Response) -> StreamError:
    if response.status < 400:
        return StreamError(f"The stream service answered {response.status}; redirects are not followed.")
    return from_response(response.status, response.headers)
