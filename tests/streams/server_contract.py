"""What every door to a server answers: the same cases in process and over HTTP (see test_server.py)."""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import orjson
import pytest

from durable_chat.streams.protocol.exchange import Handler, Request, Response
from tests.streams.test_protocol import sse_events

JSON = {"content-type": "application/json"}
TEXT = {"content-type": "text/plain"}
BINARY = {"content-type": "application/octet-stream"}
CLOSE = {"stream-closed": "true"}
SOON = 30.0

# How the servers under test are set up: small, so that a page ends and time runs out within a test.
OPTIONS: Mapping[str, Any] = {
    "long_poll_seconds": 0.3,
    "page_bytes": 64,
    "max_body": 10_000,
}


def producer(epoch: int, seq: int, name: str = "p") -> dict[str, str]:
    return {"producer-id": name, "producer-epoch": str(epoch), "producer-seq": str(seq)}


class Door:
    """A server as its users see it: whole answers, or the events of a live one."""

    def __init__(self, handler: Handler, path: str) -> None:
        self.handler = handler
        self.path = path

    async def __call__(
        self, method: str, body: bytes = b"", headers: Mapping[str, str] | None = None, **query: str
    ) -> Response:
        """The answer with its body read."""
        response = await self.open(method, body, headers, **query)
        async with response:
            return Response(response.status, response.headers, await response.read())

    async def open(
        self, method: str, body: bytes = b"", headers: Mapping[str, str] | None = None, **query: str
    ) -> Response:
        return await self.handler(Request(method, self.path, query, headers or {}, body))

    async def events(
        self, headers: Mapping[str, str] | None = None, **query: str
    ) -> AsyncIterator[tuple[str, str]]:
        """The events of a live read as they come; give it up to leave."""
        async with await self.open("GET", b"", headers, live="sse", **query) as response:
            assert response.status == 200
            assert not isinstance(response.body, bytes)
            rest = b""
            async for piece in response.body:
                *blocks, rest = (rest + piece).split(b"\n\n")
                for block in blocks:
                    for event in sse_events(block):
                        yield event


def control(event: tuple[str, str]) -> dict[str, Any]:
    assert event[0] == "control"
    fields: dict[str, Any] = orjson.loads(event[1])
    return fields


def sentence(response: Response) -> str:
    """Errors are a sentence in JSON, and are not to be kept."""
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert isinstance(response.body, bytes)
    error: str = orjson.loads(response.body)["error"]
    assert error.endswith(".")
    return error


class Lifecycle:
    async def test_create(self, ask: Door, path: str) -> None:
        created = await ask("PUT", headers=TEXT)
        assert created.status == 201
        assert created.headers["content-type"] == "text/plain"
        assert created.headers["stream-next-offset"] == "0" * 16
        assert created.headers["location"].endswith(path)
        assert "stream-closed" not in created.headers
        again = await ask("PUT", headers={"content-type": "Text/PLAIN"})
        assert again.status == 200
        assert "location" not in again.headers
        other = await ask("PUT", headers=JSON)
        assert other.status == 409
        sentence(other)

    async def test_create_without_a_type(self, ask: Door) -> None:
        assert (await ask("PUT")).headers["content-type"] == "application/octet-stream"

    async def test_create_with_content(self, ask: Door) -> None:
        assert (await ask("PUT", b'[1,{"a":2}]', JSON)).headers["stream-next-offset"].endswith("2")
        assert (await ask("GET")).body == b'[1,{"a":2}]'

    async def test_create_with_an_empty_array(self, ask: Door) -> None:
        assert (await ask("PUT", b" [ ] ", JSON)).status == 201
        assert (await ask("GET")).body == b"[]"

    async def test_closedness_is_configuration(self, ask: Door) -> None:
        created = await ask("PUT", b"all", {**TEXT, "stream-closed": "True"})
        assert (created.status, created.headers["stream-closed"]) == (201, "true")
        assert (await ask("PUT", headers={**TEXT, **CLOSE})).status == 200
        assert (await ask("PUT", headers=TEXT)).status == 409
        assert (await ask("PUT", headers={**TEXT, "stream-closed": "yes"})).status == 409

    async def test_expiry_is_configuration(self, ask: Door) -> None:
        moment = datetime.now(UTC) + timedelta(hours=1)
        until = {**TEXT, "stream-expires-at": moment.isoformat()}
        assert (await ask("PUT", headers=until)).status == 201
        assert (await ask("HEAD")).headers["stream-expires-at"] == moment.isoformat()
        spelled = moment.isoformat().replace("+00:00", "Z")
        assert (await ask("PUT", headers={**TEXT, "stream-expires-at": spelled})).status == 200
        assert (await ask("PUT", headers={**TEXT, "stream-ttl": "60"})).status == 409
        assert (await ask("PUT", headers=TEXT)).status == 409

    @pytest.mark.parametrize(
        ("headers", "body"),
        [
            ({**TEXT, "stream-ttl": "060"}, b""),
            ({**TEXT, "stream-ttl": "-1"}, b""),
            ({**TEXT, "stream-expires-at": "tomorrow"}, b""),
            ({**TEXT, "stream-ttl": "60", "stream-expires-at": "2030-01-01T00:00:00Z"}, b""),
            (JSON, b"{"),
            ({"content-type": "text"}, b""),
        ],
    )
    async def test_create_malformed(self, ask: Door, headers: Mapping[str, str], body: bytes) -> None:
        refused = await ask("PUT", body, headers)
        assert refused.status == 400
        sentence(refused)
        assert (await ask("HEAD")).status == 404

    async def test_subscriptions_are_not_offered(self, handler: Handler) -> None:
        response = await handler(Request("PUT", "__ds/subscriptions/a"))
        async with response:
            assert response.status == 501

    async def test_head(self, ask: Door) -> None:
        await ask("PUT", b"abc", {**TEXT, "stream-ttl": "3600"})
        head = await ask("HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-type"] == "text/plain"
        assert head.headers["cache-control"] == "no-store"
        assert head.headers["stream-ttl"] == "3600"
        assert head.headers["stream-next-offset"].endswith("3")
        assert "stream-closed" not in head.headers
        await ask("POST", headers=CLOSE)
        assert (await ask("HEAD")).headers["stream-closed"] == "true"

    async def test_delete(self, ask: Door) -> None:
        await ask("PUT", b"old", TEXT)
        deleted = await ask("DELETE")
        assert (deleted.status, deleted.body) == (204, b"")
        for method in ("DELETE", "HEAD", "GET"):
            assert (await ask(method)).status == 404
        assert (await ask("POST", b"x", TEXT)).status == 404
        assert (await ask("PUT", b"[1]", JSON)).status == 201
        assert (await ask("GET")).body == b"[1]"

    async def test_other_methods(self, ask: Door) -> None:
        refused = await ask("PATCH")
        assert refused.status == 405
        assert "PUT" in refused.headers["allow"]
        sentence(refused)

    @pytest.mark.parametrize("name", ["a b", "a/b/c", "ä/ö", "a%2fb", "a+b", "a&b=c?d#e", "~-_."])
    async def test_a_stream_may_have_any_printable_name(self, handler: Handler, path: str, name: str) -> None:
        ask = Door(handler, f"{path}/{name}")
        assert (await ask("PUT", name.encode(), TEXT)).status == 201
        assert (await ask("GET")).body == name.encode()
        assert (await Door(handler, path)("GET")).status == 404

    @pytest.mark.parametrize("name", ["a/../b", "a/./b", "a\x00b", "a\nb", "x" * 2000])
    async def test_but_no_other(self, handler: Handler, name: str) -> None:
        response = await handler(Request("PUT", name, {}, TEXT))
        async with response:
            assert response.status == 400


class Appending:
    async def test_append(self, ask: Door) -> None:
        await ask("PUT", headers=TEXT)
        appended = await ask("POST", b"hello", TEXT)
        assert (appended.status, appended.body) == (204, b"")
        assert appended.headers["stream-next-offset"].endswith("5")
        assert "producer-epoch" not in appended.headers

    async def test_append_to_nothing_is_404_even_if_it_is_malformed(self, ask: Door) -> None:
        assert (await ask("POST", b"x", TEXT)).status == 404
        assert (await ask("POST", b"{", JSON)).status == 404
        assert (await ask("POST", headers=CLOSE)).status == 404

    @pytest.mark.parametrize(
        ("headers", "body"),
        [
            (JSON, b""),
            (JSON, b"[]"),
            ({**JSON, **CLOSE}, b"[]"),
            (JSON, b"{"),
            ({**JSON, **producer(0, 0)}, b"{"),
            ({**JSON, **producer(0, 0)}, b""),
            ({}, b"1"),
            ({**JSON, "producer-id": "p"}, b"1"),
            ({**JSON, **producer(0, 0), "producer-id": ""}, b"1"),
            ({**JSON, **producer(0, 0), "producer-seq": "0x"}, b"1"),
            ({**JSON, **producer(0, 0), "producer-epoch": "-1"}, b"1"),
        ],
    )
    async def test_append_malformed(self, ask: Door, headers: Mapping[str, str], body: bytes) -> None:
        await ask("PUT", headers=JSON)
        refused = await ask("POST", body, headers)
        assert refused.status == 400
        sentence(refused)
        assert (await ask("GET")).body == b"[]"

    async def test_another_type_is_a_conflict(self, ask: Door) -> None:
        await ask("PUT", headers=TEXT)
        assert (await ask("POST", b"1", JSON)).status == 409
        assert (await ask("POST", b"x", {"content-type": "TEXT/plain;charset=utf-8"})).status == 204

    async def test_json_batches(self, ask: Door) -> None:
        await ask("PUT", headers={"content-type": "application/json; charset=utf-8"})
        for body in (b'{"a":1}', b'[{"b":2},[3]]', b"[[4,5]]", b" null ", b'"\xe2\x80\xa8"'):
            assert (await ask("POST", body, JSON)).status == 204
        found = await ask("GET")
        assert found.body == b'[{"a":1},{"b":2},[3],[4,5],null,"\xe2\x80\xa8"]'
        assert found.headers["content-type"] == "application/json; charset=utf-8"
        assert found.headers["stream-next-offset"].endswith("6")

    async def test_stream_seq(self, ask: Door) -> None:
        await ask("PUT", headers=TEXT)
        answers = [await ask("POST", b"x", {**TEXT, "stream-seq": seq}) for seq in ("2", "10", "2", "a", "B")]
        assert [answer.status for answer in answers] == [204, 409, 409, 204, 409]
        sentence(answers[1])

    async def test_too_much(self, ask: Door) -> None:
        await ask("PUT", headers=BINARY)
        refused = await ask("POST", b"x" * 10_001, BINARY)
        assert refused.status == 413
        sentence(refused)
        assert (await ask("POST", b"x" * 10_000, BINARY)).status == 204

    async def test_close(self, ask: Door) -> None:
        await ask("PUT", headers=TEXT)
        closed = await ask("POST", b"end", {**TEXT, **CLOSE})
        assert (closed.status, closed.headers["stream-closed"]) == (204, "true")
        again = await ask("POST", headers={**JSON, **CLOSE})
        assert (again.status, again.headers["stream-closed"]) == (204, "true")
        for headers in (TEXT, {**TEXT, **CLOSE}, JSON, {**TEXT, **producer(0, 0)}):
            refused = await ask("POST", b"1", headers)
            assert refused.status == 409
            assert refused.headers["stream-closed"] == "true"
            assert refused.headers["stream-next-offset"].endswith("3")
            sentence(refused)


class Producing:
    async def test_batches_are_new_once(self, ask: Door) -> None:
        await ask("PUT", headers=JSON)
        for seq in range(3):
            taken = await ask("POST", b"%d" % seq, {**JSON, **producer(0, seq)})
            assert taken.status == 200
            assert (taken.headers["producer-epoch"], taken.headers["producer-seq"]) == ("0", str(seq))
        repeated = await ask("POST", b"0", {**JSON, **producer(0, 0)})
        assert (repeated.status, repeated.body) == (204, b"")
        assert repeated.headers["producer-seq"] == "2"
        assert repeated.headers["stream-next-offset"] == taken.headers["stream-next-offset"]
        assert (await ask("GET")).body == b"[0,1,2]"

    async def test_a_gap_says_what_is_expected(self, ask: Door) -> None:
        await ask("PUT", headers=JSON)
        await ask("POST", b"0", {**JSON, **producer(0, 0)})
        gap = await ask("POST", b"5", {**JSON, **producer(0, 5)})
        assert gap.status == 409
        assert gap.headers["producer-expected-seq"] == "1"
        assert gap.headers["producer-received-seq"] == "5"
        sentence(gap)

    async def test_a_fence_says_by_whom(self, ask: Door) -> None:
        await ask("PUT", headers=JSON)
        await ask("POST", b"0", {**JSON, **producer(3, 0)})
        fenced = await ask("POST", b"1", {**JSON, **producer(2, 0)})
        assert (fenced.status, fenced.headers["producer-epoch"]) == (403, "3")
        sentence(fenced)
        late = await ask("POST", b"1", {**JSON, **producer(4, 1)})
        assert late.status == 400
        sentence(late)

    async def test_a_repeat_may_carry_an_old_stream_seq(self, ask: Door) -> None:
        await ask("PUT", headers=JSON)
        request = {**JSON, **producer(0, 0), "stream-seq": "a"}
        assert (await ask("POST", b"0", request)).status == 200
        assert (await ask("POST", b"0", request)).status == 204

    async def test_the_closing_append_may_be_repeated(self, ask: Door) -> None:
        await ask("PUT", headers=JSON)
        request = {**JSON, **CLOSE, **producer(0, 0)}
        assert (await ask("POST", b"1", request)).status == 200
        repeated = await ask("POST", b"2", request)
        assert (repeated.status, repeated.headers["stream-closed"]) == (204, "true")
        assert repeated.headers["stream-next-offset"].endswith("1")
        assert (await ask("GET")).body == b"[1]"

    async def test_a_producer_may_merely_close(self, ask: Door) -> None:
        await ask("PUT", headers=JSON)
        for _ in range(2):
            closed = await ask("POST", headers={**CLOSE, **producer(0, 0)})
            assert (closed.status, closed.headers["stream-closed"]) == (204, "true")
            assert closed.headers["producer-seq"] == "0"


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
    async def test_every_answer_is_safe_to_serve(self, ask: Door) -> None:
        answers = [
            await ask("PUT", b"abc", TEXT),
            await ask("POST", b"d", TEXT),
            await ask("HEAD"),
            await ask("GET"),
            await ask("GET", offset="now", live="long-poll"),
            await ask("GET", offset="bad"),
            await ask("PATCH"),
            await ask("DELETE"),
            await ask("GET"),
        ]
        for answer in answers:
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
            assert answer.headers["access-control-allow-origin"] == "*"
            assert "stream-next-offset" in answer.headers["access-control-expose-headers"].lower()

    async def test_preflight(self, ask: Door) -> None:
        answer = await ask("OPTIONS", headers={"origin": "https://example.com"})
        assert answer.status == 204
        allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
        assert {"authorization", "if-none-match", "producer-epoch", "stream-closed"} <= set(allowed)
        assert "DELETE" in answer.headers["access-control-allow-methods"]


class ServerContract(Lifecycle, Appending, Producing, CatchingUp, LongPolling, Streaming, Browsing):
    """All of it. Subclasses give the fixture ``handler``."""

    @pytest.fixture
    def path(self) -> str:
        return f"contract/{uuid4()}"

    @pytest.fixture
    def ask(self, handler: Handler, path: str) -> Door:
        return Door(handler, path)
