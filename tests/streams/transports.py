"""The transports that carry requests in tests: the one that sites use, and httpx's own."""

from collections.abc import Callable, Mapping

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport


def on_aiohttp(*, limit: int = 0) -> AiohttpTransport:
    """As sites use it; `limit` caps the connections."""
    return AiohttpTransport(
        verify=False,
        client=lambda: aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=limit)),
    )


def httpx_own(*, limit: int = 0) -> httpx.AsyncHTTPTransport:
    return httpx.AsyncHTTPTransport(verify=False, limits=httpx.Limits(max_connections=limit or None))


TRANSPORTS: Mapping[str, Callable[..., httpx.AsyncBaseTransport]] = {
    "aiohttp": on_aiohttp,
    "httpx": httpx_own,
}
