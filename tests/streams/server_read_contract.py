"""What every door to a server answers to who reads, now or live."""

import asyncio
import base64
from contextlib import aclosing

import orjson
import pytest

from durable_chat.streams.protocol.exchange import Response
from tests.streams.door import CLOSE, JSON, TEXT, Door, control, sentence
from tests.streams.test_protocol import sse_events


class CatchingUp:
    async def test_pages(self, ask: Door) -> None:
        await ask("PUT", headers=JSON)
        for number in range(10):
            await ask("POST", b'["%s"]' % (b"%d" % number * 30), JSON)
        offset, seen, closed = "-1", [], []
        await ask("POST", headers=CLOSE)
        for _ in range(5):
            page = await ask("GET", offset=offset)
            assert isinstance(page.body, bytes)
            seen += orjson.loads(page.body)
            closed.append(page.headers.get("stream-closed"))
            assert page.headers.get("stream-up-to-date") == closed[-1]
            assert ("stream-cursor" in page.headers) is (closed[-1] is None)
            offset = page.headers["stream-next-offset"]
        assert seen == [str(number) * 30 for number in range(10)]
        assert closed == [None, None, None, None, "true"]
        end = await ask("GET", offset=offset)
        assert (end.status, end.body, end.headers["stream-closed"]) == (200, b"[]", "true")

    async def test_from_the_start_and_from_now(self, ask: Door) -> None:
        await ask("PUT", b"abc", TEXT)
        assert (await ask("GET")).body == (await ask("GET", offset="-1")).body == b"abc"
        now = await ask("GET", offset="now")
        assert (now.status, now.body) == (200, b"")
        assert now.headers["stream-up-to-date"] == "true"
        assert now.headers["cache-control"] == "no-store"
        assert "etag" not in now.headers
        await ask("POST", b"d", TEXT)
        assert (await ask("GET", offset=now.headers["stream-next-offset"])).body == b"d"

    async def test_now_of_a_closed_json_stream(self, ask: Door) -> None:
        await ask("PUT", b"[1]", {**JSON, **CLOSE})
        now = await ask("GET", offset="now")
        assert (now.body, now.headers["stream-closed"]) == (b"[]", "true")

    @pytest.mark.parametrize(
        "offset", ["", "0", "a", "0 1", "0,1", "../x", "NOW", "1" * 16, "0" * 15 + "1", "0" * 16 + ".1"]
    )
    async def test_offsets_that_were_never_issued(self, ask: Door, offset: str) -> None:
        await ask("PUT", b"abc", TEXT)
        for live in ({}, {"live": "long-poll"}, {"live": "sse"}):
            refused = await ask("GET", offset=offset, **live)
            assert refused.status == 400
            sentence(refused)

    async def test_unknown_parameters(self, ask: Door) -> None:
        await ask("PUT", b"abc", TEXT)
        assert (await ask("GET", other="x", id="y")).body == b"abc"
        for query in ({"live": "sse"}, {"live": "long-poll"}, {"live": "often", "offset": "-1"}):
            assert (await ask("GET", **query)).status == 400

    async def test_etag(self, ask: Door) -> None:
        await ask("PUT", b"abc", TEXT)
        first = await ask("GET")
        for known in (first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"):
            unchanged = await ask("GET", headers={"if-none-match": known})
            assert (unchanged.status, unchanged.body) == (304, b"")
            assert unchanged.headers["etag"] == first.headers["etag"]
            assert unchanged.headers["stream-next-offset"] == first.headers["stream-next-offset"]
        tags = {first.headers["etag"]}
        for change in (
            ("POST", b"d", TEXT),
            ("POST", b"", CLOSE),
            ("DELETE", b"", {}),
            ("PUT", b"abc", TEXT),
        ):
            await ask(*change)
            changed = await ask("GET", headers={"if-none-match": ", ".join(tags)})
            if change[0] == "DELETE":
                assert changed.status == 404
                continue
            assert changed.status == 200
            tags.add(changed.headers["etag"])
        assert len(tags) == 4

    async def test_answers_are_private(self, ask: Door) -> None:
        await ask("PUT", b"abc", TEXT)
        assert "private" in (await ask("GET")).headers["cache-control"]


class LongPolling:
    async def test_what_is_there_comes_at_once(self, ask: Door) -> None:
        await ask("PUT", b"[1]", JSON)
        found = await ask("GET", offset="-1", live="long-poll")
        assert (found.status, found.body) == (200, b"[1]")
        assert found.headers["stream-up-to-date"] == "true"
        assert found.headers["stream-cursor"].isdigit()

    async def test_nothing_in_time(self, ask: Door) -> None:
        await ask("PUT", b"abc", TEXT)
        nothing = await ask("GET", offset="now", live="long-poll")
        assert (nothing.status, nothing.body) == (204, b"")
        assert nothing.headers["stream-next-offset"].endswith("3")
        assert nothing.headers["stream-up-to-date"] == "true"
        cursor = nothing.headers["stream-cursor"]
        again = await ask("GET", offset="now", live="long-poll", cursor=cursor)
        assert int(again.headers["stream-cursor"]) > int(cursor)

    async def test_what_comes_meanwhile(self, ask: Door) -> None:
        await ask("PUT", b"abc", TEXT)

        async def poll() -> Response:
            while (found := await ask("GET", offset="now", live="long-poll")).status == 204:
                pass
            return found

        polling = asyncio.create_task(poll())
        while not polling.done():
            await asyncio.sleep(0)
            await ask("POST", b"d", TEXT)
        found = await polling
        assert found.status == 200
        assert isinstance(found.body, bytes)
        assert found.body.strip(b"d") == b"" != found.body

    async def test_the_end_of_a_closed_stream_is_not_waited_for(self, ask: Door) -> None:
        await ask("PUT", b"abc", {**TEXT, **CLOSE})
        for offset in ("now", "0000000000000003"):
            end = await ask("GET", offset=offset, live="long-poll")
            assert (end.status, end.headers["stream-closed"]) == (204, "true")
            assert end.headers["stream-up-to-date"] == "true"

    async def test_a_stream_that_is_deleted_meanwhile(self, ask: Door) -> None:
        await ask("PUT", headers=TEXT)
        polling = asyncio.create_task(ask("GET", offset="now", live="long-poll"))
        await asyncio.sleep(0)
        await ask("DELETE")
        assert (await polling).status in {404, 204}
        assert (await ask("GET", offset="now", live="long-poll")).status == 404


class Streaming:
    async def test_history_then_news_then_the_end(self, ask: Door) -> None:
        await ask("PUT", b'[{"n":0}]', JSON)
        async with aclosing(ask.events(offset="-1")) as events:
            assert await anext(events) == ("data", '[{"n":0}]')
            caught_up = control(await anext(events))
            assert caught_up["upToDate"] is True
            assert caught_up["streamCursor"].isdigit()
            appended = await ask("POST", b'[{"n":1},{"n":2}]', JSON)
            assert await anext(events) == ("data", '[{"n":1},{"n":2}]')
            assert control(await anext(events))["streamNextOffset"] == appended.headers["stream-next-offset"]
            await ask("POST", b'[{"n":3}]', {**JSON, **CLOSE})
            assert await anext(events) == ("data", '[{"n":3}]')
            end = control(await anext(events))
            assert end == {"streamNextOffset": "0" * 15 + "4", "upToDate": True, "streamClosed": True}
            assert [event async for event in events] == []

    async def test_headers(self, ask: Door) -> None:
        await ask("PUT", b"abc", TEXT)
        async with await ask.open("GET", offset="-1", live="sse") as response:
            assert response.headers["content-type"] == "text/event-stream"
            assert "no-cache" in response.headers["cache-control"]
            assert "content-length" not in response.headers
            assert "stream-sse-data-encoding" not in response.headers

    async def test_an_empty_stream_says_so_first(self, ask: Door) -> None:
        await ask("PUT", headers=JSON)
        async with aclosing(ask.events(offset="-1")) as events:
            first = control(await anext(events))
            assert (first["streamNextOffset"], first["upToDate"]) == ("0" * 16, True)

    async def test_now(self, ask: Door) -> None:
        await ask("PUT", b"old", TEXT)
        async with aclosing(ask.events(offset="now")) as events:
            assert control(await anext(events))["streamNextOffset"].endswith("3")
            await ask("POST", b"new", TEXT)
            assert await anext(events) == ("data", "new")

    async def test_every_page_has_its_control(self, ask: Door) -> None:
        await ask("PUT", headers=JSON)
        for number in range(12):
            await ask("POST", b'["%s"]' % (b"%x" % number * 20), JSON)
        await ask("POST", headers=CLOSE)
        events = [event async for event in ask.events(offset="-1")]
        assert [name for name, _ in events] == ["data", "control"] * (len(events) // 2)
        assert len(events) > 4
        seen = [message for name, text in events if name == "data" for message in orjson.loads(text)]
        assert seen == [f"{number:x}" * 20 for number in range(12)]
        controls = [control(event) for event in events[1::2]]
        assert [fields.get("upToDate", False) for fields in controls[:-1]] == [False] * (len(controls) - 1)
        for fields, (_, text) in zip(controls[:-1], events[2::2], strict=True):
            page = await ask("GET", offset=fields["streamNextOffset"])
            assert isinstance(page.body, bytes)
            assert orjson.loads(page.body)[0] == orjson.loads(text)[0]

    async def test_bytes_travel_in_base64(self, ask: Door) -> None:
        every = bytes(range(256))
        await ask("PUT", every, {"content-type": "image/png", **CLOSE})
        async with await ask.open("GET", offset="-1", live="sse") as response:
            assert response.headers["stream-sse-data-encoding"] == "base64"
            events = sse_events(await response.read())
        assert base64.b64decode(events[0][1]) == every
        assert control(events[1])["streamClosed"] is True

    async def test_text_makes_no_events_of_its_own(self, ask: Door) -> None:
        text = "a\r\n\r\nevent: control\rdata: {}\n\n  b"
        await ask("PUT", text.encode(), {**TEXT, **CLOSE})
        events = [event async for event in ask.events(offset="-1")]
        assert events[0] == ("data", "a\n\nevent: control\ndata: {}\n\n  b")
        assert len(events) == 2

    async def test_the_end_of_a_closed_stream(self, ask: Door) -> None:
        await ask("PUT", b"abc", {**TEXT, **CLOSE})
        events = [event async for event in ask.events(offset="now")]
        assert [control(event) for event in events] == [
            {"streamNextOffset": "0" * 15 + "3", "upToDate": True, "streamClosed": True}
        ]

    async def test_a_deleted_stream_ends(self, ask: Door) -> None:
        await ask("PUT", b"abc", TEXT)
        async with aclosing(ask.events(offset="now")) as events:
            await anext(events)
            await ask("DELETE")
            await ask("PUT", b"abc", TEXT)
            await ask("POST", b"def", TEXT)  # where the deleted one would have gone on
            assert [event async for event in events] == []

    async def test_a_stream_that_is_not_there(self, ask: Door) -> None:
        assert (await ask("GET", offset="-1", live="sse")).status == 404


class Browsing:
    async def test_preflight(self, ask: Door) -> None:
        answer = await ask("OPTIONS", headers={"origin": "https://example.com"})
        assert answer.status == 204
        allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
        assert {"authorization", "if-none-match", "producer-epoch", "stream-closed"} <= set(allowed)
        assert "DELETE" in answer.headers["access-control-allow-methods"]
