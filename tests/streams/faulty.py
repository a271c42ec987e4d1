"""Trouble on the way to a server: a Handler that plays a plan of faults, one a request, and keeps count."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from durable_chat.streams.protocol.errors import Unavailable
from durable_chat.streams.protocol.exchange import Handler, Request, Response

Fault = Callable[[Handler, Request], Awaitable[Response]]


async def fine(handler: Handler, request: Request) -> Response:
    return await handler(request)


async def lost_request(handler: Handler, request: Request) -> Response:
    raise Unavailable("The request never arrived.")


async def lost_answer(handler: Handler, request: Request) -> Response:
    await (await handler(request)).aclose()
    raise Unavailable("The answer never arrived.")


async def busy(handler: Handler, request: Request) -> Response:
    return Response(503, {"retry-after": "0"})


class Faulty:
    """``handler`` behind a line that plays ``plan`` and is fine after it; ``held`` lets nothing through."""

    def __init__(self, handler: Handler, plan: Iterable[Fault] = ()) -> None:
        self.handler = handler
        self.plan = deque(plan)
        self.requests: list[Request] = []
        self.in_flight = self.most_in_flight = 0
        self.open = asyncio.Event()
        self.open.set()
        self._arrival = asyncio.Condition()

    async def __call__(self, request: Request) -> Response:
        async with self._arrival:
            self.requests.append(request)
            self._arrival.notify_all()
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.open.wait()
            fault = self.plan.popleft() if self.plan else fine
            return await fault(self.handler, request)
        finally:
            self.in_flight -= 1

    async def reached(self, count: int) -> None:
        """Wait until so many requests have come."""
        async with self._arrival:
            await self._arrival.wait_for(lambda: len(self.requests) >= count)

    def count(self, method: str) -> int:
        return sum(request.method == method for request in self.requests)


class CutBody:
    """A body that breaks after ``keep`` bytes, or goes silent if ``hang``; knows whether it was closed."""

    def __init__(self, response: Response, keep: int, *, hang: bool = False) -> None:
        self._response, self._left, self._hang = response, keep, hang
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert not isinstance(self._response.body, bytes)
        async for piece in self._response.body:
            yield piece[: self._left]
            self._left -= len(piece)
            if self._left <= 0:
                break
        if self._hang:
            await asyncio.Event().wait()
        raise Unavailable("The connection broke.")

    async def aclose(self) -> None:
        self.closed = True
        await self._response.aclose()


def cut_after(keep: int, *, hang: bool = False, seen: list[CutBody] | None = None) -> Fault:
    """A fault of live reads: the body ends after ``keep`` bytes."""

    async def fault(handler: Handler, request: Request) -> Response:
        response = await handler(request)
        if isinstance(response.body, bytes):
            return response
        body = CutBody(response, keep, hang=hang)
        if seen is not None:
            seen.append(body)
        return response._replace(body=body)

    return fault
