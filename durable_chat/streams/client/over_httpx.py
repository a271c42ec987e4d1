"""Requests over a transport of httpx: through proxies, and whatever else somebody has one for."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

import aiohttp
import httpx

from durable_chat.streams.client.transport import Outgoing
from durable_chat.streams.protocol.exchange import Response


class OverHTTPX:
    """A ``Transport`` that asks one of httpx.

    An ``AsyncClient`` before it would cost as much again, for redirects and cookies that are not wanted here.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def send(self, outgoing: Outgoing) -> Response:
        patience = outgoing.patience
        with _translated():
            # Not every transport times the writing, so all that comes before the answer is timed as one.
            async with asyncio.timeout(patience.connect + patience.write + outgoing.silence):
                response = await self._transport.handle_async_request(_request(outgoing))
        return Response(response.status_code, _headers(response), _Body(response))

    async def aclose(self) -> None:
        await self._transport.aclose()


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
        with _translated():
            async for piece in self._response.aiter_raw():
                yield piece


def _request(outgoing: Outgoing) -> httpx.Request:
    scheme, host, port = outgoing.origin
    patience = outgoing.patience
    timeout = {"connect": patience.connect, "write": patience.write, "read": outgoing.silence}
    return httpx.Request(
        outgoing.method,
        httpx.URL(scheme=scheme, host=host, port=port, raw_path=outgoing.target.encode()),
        headers=[(name.encode(), value.encode("latin-1")) for name, value in outgoing.headers.items()],
        content=outgoing.body or None,
        extensions={"timeout": timeout},
    )


def _headers(response: httpx.Response) -> dict[str, str]:
    """Decoded here: httpx guesses the encoding anew for each of them."""
    headers: dict[str, str] = {}
    for name, value in response.headers.raw:
        known, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[known] = f"{headers[known]}, {text}" if known in headers else text
    return headers


@contextmanager
def _translated() -> Iterator[None]:
    """Texts of errors quote URLs. Some errors of aiohttp pass through the transport that is built on it."""
    try:
        yield
    except (httpx.ReadTimeout, httpx.WriteTimeout, TimeoutError):
        raise TimeoutError from None
    except (httpx.HTTPError, aiohttp.ClientError):
        raise ConnectionError from None
