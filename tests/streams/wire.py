"""A raw HTTP/1.1 door for tests that must break the connection itself, which no framework does for them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, unquote

from durable_chat.streams.protocol.exchange import Request, Response

Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_server(answer: Answer) -> AsyncIterator[str]:
    """One request a connection, which ends when ``answer`` returns; yields the base URL."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(await _read_request(reader), writer)
        except ConnectionError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/stream"
    finally:
        server.close()
        await server.wait_closed()


async def _read_request(reader: asyncio.StreamReader) -> Request:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    path, _, query = target.partition("?")
    return Request(
        method,
        unquote(path.removeprefix("/v1/stream/")),
        dict(parse_qsl(query, keep_blank_values=True)),
        headers,
        body,
    )


async def send_response(
    writer: asyncio.StreamWriter, response: Response, *, cut_after: int | None = None
) -> None:
    """Send it, its body in chunks; ``cut_after`` so many bytes of the body the connection is reset."""
    async with response:
        length = {"content-length": str(len(response.body))} if isinstance(response.body, bytes) else {}
        framing = length or {"transfer-encoding": "chunked"}
        writer.write(f"HTTP/1.1 {response.status} -\r\n".encode())
        for name, value in {**response.headers, **framing, "connection": "close"}.items():
            writer.write(f"{name}: {value}\r\n".encode())
        writer.write(b"\r\n")
        if isinstance(response.body, bytes):
            writer.write(response.body)
            await writer.drain()
            return
        sent = 0
        async for piece in response.body:
            kept = piece if cut_after is None else piece[: cut_after - sent]
            if kept:
                writer.write(f"{len(kept):x}\r\n".encode() + kept + b"\r\n")
                await writer.drain()
            sent += len(kept)
            if sent == cut_after:
                return  # without the last chunk: broken off
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def reset(writer: asyncio.StreamWriter) -> None:
    """Drop the connection without a word."""
    writer.transport.abort()
