"""The seam: a server is a function from a Request to a Response, wherever it runs."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import Final, NamedTuple, Protocol, Self, TypeAlias

_NONE: Final[Mapping[str, str]] = MappingProxyType({})


class Body(Protocol):
    """A body that arrives in pieces and holds resources until it is closed. An async generator is one."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


class Request(NamedTuple):
    """One request to a streams server.

    ``path`` is the stream's name below the server's root, decoded and without a leading slash; the names of
    ``headers`` are in lower case; a query parameter that was given twice keeps its last value. A stream that
    a header names is named as ``path`` names this one.
    """

    method: str
    path: str
    query: Mapping[str, str] = _NONE
    headers: Mapping[str, str] = _NONE
    body: bytes = b""


class Response(NamedTuple):
    """One answer, closed by whoever receives it (``async with``). Names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str] = _NONE
    body: bytes | Body = b""

    async def read(self) -> bytes:
        """The whole body. Not for live responses, which end when the server rolls them."""
        if isinstance(self.body, bytes):
            return self.body
        return b"".join([piece async for piece in self.body])

    async def aclose(self) -> None:
        """Let go of what the body holds; a body that is plain bytes holds nothing."""
        if not isinstance(self.body, bytes):
            await self.body.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
