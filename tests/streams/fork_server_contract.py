"""What every door to a server answers about forks: the same cases in process and over HTTP (section 4.2)."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing

import pytest

from durable_chat.streams.protocol.exchange import Handler
from tests.streams.door import BINARY, CLOSE, JSON, TEXT, Door, control, producer, sentence


def of(source: Door, offset: str | None = None, sub_offset: int | None = None) -> dict[str, str]:
    """The headers that ask for a fork."""
    return {
        "stream-forked-from": source.path,
        **({} if offset is None else {"stream-fork-offset": offset}),
        **({} if sub_offset is None else {"stream-fork-sub-offset": str(sub_offset)}),
    }


class ForkingServer:
    """Besides a ``ServerContract``, whose fixtures it uses."""

    @pytest.fixture
    def source(self, handler: Handler, path: str) -> Door:
        return Door(handler, f"{path}/source ä%2f")

    async def test_fork(self, ask: Door, source: Door) -> None:
        first = await source("PUT", b'[{"n":1}]', JSON)
        await source("POST", b'[{"n":2}]', JSON)
        offset = first.headers["stream-next-offset"]
        forked = await ask("PUT", headers=of(source, offset))
        assert forked.status == 201
        assert forked.headers["location"].endswith(ask.path)
        assert forked.headers["content-type"] == "application/json"
        assert forked.headers["stream-next-offset"] == offset
        assert not any("fork" in name for name in forked.headers)
        assert (await ask("PUT", headers=of(source, offset))).status == 200
        assert (await ask("PUT", headers=JSON)).status == 409
        appended = await ask("POST", b'[{"n":3}]', JSON)
        assert appended.headers["stream-next-offset"] > offset
        whole = await ask("GET")
        assert whole.body == b'[{"n":1},{"n":3}]'
        assert whole.headers["stream-next-offset"] == appended.headers["stream-next-offset"]
        assert (await ask("GET", offset=offset)).body == b'[{"n":3}]'
        assert (await source("GET")).body == b'[{"n":1},{"n":2}]'
        assert whole.headers["etag"] != (await source("GET")).headers["etag"]

    async def test_a_body_is_read_as_the_source_is(self, ask: Door, source: Door) -> None:
        await source("PUT", b"[1,2,3]", JSON)
        forked = await ask("PUT", b"[4,5]", of(source, "-1", 2))
        assert forked.status == 201
        assert (await ask("GET")).body == b"[1,2,4,5]"
        assert (await ask("GET", offset=forked.headers["stream-next-offset"])).body == b"[]"
        await source("DELETE")
        assert (await ask("PUT", b"[4,5]", of(source, "-1", 2))).status == 200

    async def test_a_cut_of_bytes(self, ask: Door, source: Door) -> None:
        await source("PUT", bytes(range(8)), {**BINARY, **CLOSE})
        assert (await ask("PUT", headers=of(source, "0" * 16, 3))).status == 201
        assert (await ask("POST", b"\xff", BINARY)).status == 204
        assert (await ask("GET")).body == b"\x00\x01\x02\xff"

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"stream-fork-sub-offset": "4"}, 400),
            ({"stream-fork-sub-offset": "-1"}, 400),
            ({"stream-fork-offset": "-1", "stream-fork-sub-offset": "4"}, 400),
            ({"stream-fork-offset": "0" * 15 + "9"}, 400),
            ({"stream-fork-offset": "0" * 15 + "1"}, 400),
            ({"stream-fork-offset": "three"}, 400),
            ({"stream-ttl": "060"}, 400),
            (JSON, 409),
        ],
    )
    async def test_what_cannot_be_forked(
        self, ask: Door, source: Door, headers: Mapping[str, str], status: int
    ) -> None:
        await source("PUT", b"abc", TEXT)
        refused = await ask("PUT", headers={**of(source), **headers})
        assert refused.status == status
        sentence(refused)
        await source("DELETE")
        assert (await source("HEAD")).status == 404  # no reference is left

    async def test_what_is_no_fork(self, ask: Door, source: Door) -> None:
        refused = await ask("PUT", headers=of(source))
        assert refused.status == 404
        sentence(refused)
        for name in ("stream-fork-offset", "stream-fork-sub-offset"):
            assert (await ask("PUT", headers={**TEXT, name: "0"})).status == 400

    async def test_expiry(self, ask: Door, source: Door, handler: Handler, path: str) -> None:
        await source("PUT", headers={**TEXT, "stream-ttl": "3600"})
        assert (await ask("PUT", headers=of(source))).headers["stream-ttl"] == "3600"
        other = Door(handler, f"{path}/other")
        until = {"stream-expires-at": "2999-01-01T00:00:00Z"}
        forked = await other("PUT", headers={**of(source), **until})
        assert forked.headers["stream-expires-at"] == until["stream-expires-at"]
        assert "stream-ttl" not in forked.headers

    async def test_writers_begin_anew(self, ask: Door, source: Door) -> None:
        await source("PUT", headers=JSON)
        await source("POST", b"1", {**JSON, **producer(3, 0), "stream-seq": "z"})
        await ask("PUT", headers=of(source))
        assert (await ask("POST", b"2", {**JSON, **producer(0, 0), "stream-seq": "a"})).status == 200
        assert (await ask("GET")).body == b"[1,2]"

    async def test_deletion(self, ask: Door, source: Door, handler: Handler, path: str) -> None:
        await source("PUT", b"abc", TEXT)
        await ask("PUT", headers=of(source))
        assert (await source("DELETE")).status == 204
        answers = [
            await source("HEAD"),
            await source("GET"),
            await source("GET", offset="now", live="long-poll"),
            await source("GET", offset="-1", live="sse"),
            await source("POST", b"x", TEXT),
            await source("DELETE"),
        ]
        assert [answer.status for answer in answers] == [410] * 6
        sentence(answers[1])
        assert (await source("PUT", headers=TEXT)).status == 409
        assert (await Door(handler, f"{path}/other")("PUT", headers=of(source))).status == 409
        assert (await ask("GET")).body == b"abc"
        assert (await ask("DELETE")).status == 204
        assert (await source("HEAD")).status == 404
        assert (await source("PUT", headers=JSON)).status == 201

    async def test_long_poll(self, ask: Door, source: Door) -> None:
        first = await source("PUT", b"abc", TEXT)
        await ask("PUT", headers=of(source))
        offset = first.headers["stream-next-offset"]
        inherited = await ask("GET", offset="-1", live="long-poll")
        assert (inherited.status, inherited.body) == (200, b"abc")
        polling = asyncio.create_task(ask("GET", offset=offset, live="long-poll"))
        await asyncio.sleep(0)
        await source("POST", b"no", TEXT)
        assert (await polling).status == 204
        polling = asyncio.create_task(ask("GET", offset=offset, live="long-poll"))
        await asyncio.sleep(0)
        await ask("POST", b"yes", TEXT)
        assert (await polling).body == b"yes"

    async def test_sse(self, ask: Door, source: Door) -> None:
        await source("PUT", b'[{"n":0}]', JSON)
        await ask("PUT", b'[{"n":1}]', of(source))
        async with aclosing(ask.events(offset="-1")) as events:
            assert await anext(events) == ("data", '[{"n":0},{"n":1}]')
            assert control(await anext(events))["upToDate"] is True
            await source("POST", b'[{"n":"no"}]', JSON)
            await source("DELETE")
            await ask("POST", b'[{"n":2}]', {**JSON, **CLOSE})
            assert await anext(events) == ("data", '[{"n":2}]')
            assert control(await anext(events))["streamClosed"] is True
            assert [event async for event in events] == []
