"""The transports that carry requests in tests: ours, the one for proxies, and httpx's own."""

from collections.abc import Callable, Mapping

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from durable_chat.streams.client.over_httpx import OverHTTPX
from durable_chat.streams.client.pool import Pool
from durable_chat.streams.client.transport import Transport


def on_aiohttp() -> OverHTTPX:
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    return OverHTTPX(AiohttpTransport(verify=False, client=session))


def httpx_own() -> OverHTTPX:
    return OverHTTPX(httpx.AsyncHTTPTransport(verify=False, limits=httpx.Limits(max_connections=None)))


TRANSPORTS: Mapping[str, Callable[[], Transport]] = {
    "pool": Pool,
    "aiohttp": on_aiohttp,
    "httpx": httpx_own,
}
