"""What every door to a server answers to who creates, appends and deletes."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from durable_chat.streams.protocol.exchange import Handler, Request
from tests.streams.door import BINARY, CLOSE, JSON, TEXT, Door, producer, sentence


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
            ({**JSON, **producer(0, 0), "producer-id": "p" * 1025}, b"1"),
            ({**JSON, "stream-seq": "1" * 1025}, b"1"),
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
