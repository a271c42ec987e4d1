"""What readers of a hub may rely on, whatever its frames come from."""

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest

from durable_chat.streams.client import StreamClient
from durable_chat.streams.hub import Frame, Hub, Reader
from durable_chat.streams.protocol.errors import StreamNotFound
from durable_chat.streams.protocol.exchange import Handler, Request
from durable_chat.streams.protocol.offsets import NOW, START

SOON = 30.0  # long enough that only a hub which never answers fails


def soon() -> float:
    return asyncio.get_running_loop().time() + SOON


def nothing_is_left() -> bool:
    return asyncio.all_tasks() == {asyncio.current_task()}


class Follower:
    """A reader and where it is; it checks that each frame begins where the last one ended."""

    def __init__(self, reader: Reader, frame: Frame) -> None:
        self.reader = reader
        self.frame = frame
        self.seen: list[int] = orjson.loads(frame.body)

    async def step(self, until: float | None = None) -> Frame | None:
        following = await self.reader.after(self.frame, until=soon() if until is None else until)
        if following is not None:
            assert following.start == self.frame.end
            self.frame = following
            self.seen += orjson.loads(following.body)
        return following

    async def to_the_end(self) -> list[int]:
        while not self.frame.closed:
            assert await self.step() is not None
        return self.seen

    async def until(self, count: int) -> list[int]:
        while len(self.seen) < count:
            assert await self.step() is not None
        return self.seen


class HubContract:
    """Subclasses give the fixtures ``service``, where streams are written, and ``hub``, where they are read.

    The hub keeps few frames.
    """

    @pytest.fixture
    async def client(self, service: Handler) -> AsyncIterator[StreamClient]:
        client = StreamClient(service)
        await client.create("a")
        yield client
        assert nothing_is_left()

    async def test_readers_share_what_follows(self, client: StreamClient, hub: Hub) -> None:
        async with hub.reader("a") as first, hub.reader("a") as second:
            followers = [Follower(reader, await hub.read("a", NOW)) for reader in (first, second)]
            for number in range(5):
                steps = [asyncio.create_task(follower.step()) for follower in followers]
                await asyncio.sleep(0)
                await client.append("a", [number])
                one, other = await asyncio.gather(*steps)
                assert one is other
            assert followers[0].seen == [*range(5)]

    async def test_catch_up_then_live(self, client: StreamClient, hub: Hub) -> None:
        await client.append("a", [*range(100)])
        async with hub.reader("a") as reader:
            follower = Follower(reader, await hub.read("a", START))
            assert await follower.until(100) == [*range(100)]
            await client.append("a", [100])
            assert await follower.until(101) == [*range(101)]

    async def test_a_reader_that_stalls_misses_nothing(self, client: StreamClient, hub: Hub) -> None:
        async with hub.reader("a") as slow, hub.reader("a") as quick:
            stalled, following = [Follower(reader, await hub.read("a", NOW)) for reader in (slow, quick)]
            await client.append("a", [0])
            await stalled.step()
            for number in range(1, 50):
                await client.append("a", [number])
                await following.until(number)
            assert await stalled.until(50) == [*range(50)]
            steps = [asyncio.create_task(each.until(51)) for each in (stalled, following)]
            await client.append("a", [50])
            assert await asyncio.gather(*steps) == [[*range(51)]] * 2

    async def test_a_closed_stream_ends_all(self, client: StreamClient, hub: Hub) -> None:
        async with hub.reader("a") as first, hub.reader("a") as second:
            followers = [Follower(reader, await hub.read("a", NOW)) for reader in (first, second)]
            steps = [asyncio.create_task(follower.to_the_end()) for follower in followers]
            await client.append("a", [1])
            await client.append("a", [2], close=True)
            assert await asyncio.gather(*steps) == [[1, 2]] * 2

    async def test_a_deleted_stream_is_not_found(self, client: StreamClient, hub: Hub) -> None:
        async with hub.reader("a") as reader:
            follower = Follower(reader, await hub.read("a", NOW))
            step = asyncio.create_task(follower.step())
            await client.append("a", [1])
            await step
            step = asyncio.create_task(follower.step())
            await asyncio.sleep(0)
            await client.delete("a")
            with pytest.raises(StreamNotFound):
                await step

    async def test_a_stream_that_is_replaced_is_not_found(self, client: StreamClient, hub: Hub) -> None:
        async with hub.reader("a") as reader, hub.reader("a") as other:
            follower = Follower(reader, await hub.read("a", NOW))
            await client.append("a", [1, 2])
            await follower.until(2)
            step = asyncio.create_task(follower.step())
            await asyncio.sleep(0)
            await client.delete("a")
            await client.create("a")
            await client.append("a", [3])
            with pytest.raises(StreamNotFound):
                await step
            new = Follower(other, await hub.read("a", START))
            assert await new.until(1) == [3]

    @pytest.mark.parametrize(
        ("content_type", "bodies"),
        [
            ("application/json", [b'[{"text":"\xe2\x98\x83\xe2\x80\xa8\\r\\n"}]', b"[1,2]", b"[null]"]),
            ("text/plain; charset=utf-8", [b"a\r\nb\rc\n\n", b" \n: x\r\n", "☃\u2028\u0085".encode()]),
            ("application/octet-stream", [bytes(range(256)), b"\n", b"[]"]),
        ],
    )
    async def test_bodies_are_byte_for_byte(
        self, service: Handler, hub: Hub, content_type: str, bodies: list[bytes]
    ) -> None:
        async def write(method: str, body: bytes, **headers: str) -> None:
            sent = {"content-type": content_type, **headers}
            async with await service(Request(method, "b", {}, sent, body)) as response:
                assert response.status < 300

        await write("PUT", b"")
        frame = await hub.read("b", NOW)
        async with hub.reader("b") as reader:
            for body in bodies:
                await write("POST", body)
                following = await reader.after(frame, until=soon())
                assert following is not None
                frame = following
                assert frame.body == body
            await write("POST", b"", **{"stream-closed": "true"})
            following = await reader.after(frame, until=soon())
            assert following is not None
            assert following.closed

    async def test_the_last_reader_takes_the_tail_along(self, client: StreamClient, hub: Hub) -> None:
        for _ in range(3):
            async with hub.reader("a") as first:
                step = asyncio.create_task(Follower(first, await hub.read("a", NOW)).step())
                async with hub.reader("a") as second:
                    other = asyncio.create_task(Follower(second, await hub.read("a", NOW)).step())
                    await client.append("a", [1])
                    await asyncio.gather(step, other)
            assert nothing_is_left()
