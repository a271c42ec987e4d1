"""How every store lists its streams and erases those that have expired; part of the contract."""

import pytest

from durable_chat.streams.protocol.errors import StreamNotFound, Unavailable
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.forks import Fork
from durable_chat.streams.stores.base import Append, Batch, NewStream
from durable_chat.streams.stores.catalogue import CataloguedStore
from tests.streams.store_contract import ALL, JSON, TEXT, Clock, messages, text

MORTAL = NewStream(TEXT, Expiry(ttl=10))


async def paths(store: CataloguedStore, *, prefix: str = "", after: str = "", limit: int = 100) -> list[str]:
    return [listed.path for listed in await store.scan(prefix=prefix, after=after, limit=limit)]


class Cataloguing:
    """Subclasses give the fixtures ``clock`` and ``store``."""

    async def test_nothing_is_listed_where_nothing_is(self, store: CataloguedStore) -> None:
        assert await store.scan(limit=10) == []
        assert await store.sweep(limit=10) == 0

    async def test_what_is_listed_is_what_head_tells(self, store: CataloguedStore) -> None:
        await store.create("a", NewStream(JSON, Expiry(ttl=60), Batch(b"1,2", 2)))
        await store.create("b", NewStream(TEXT))
        await store.append("a", messages(b'"three"', 1))
        await store.append("b", text(b"four"))
        await store.append("b", text(b"", close=True))
        a, b = await store.scan(limit=10)
        assert (a.path, a.stream, a.size) == ("a", await store.head("a"), 10)
        assert (b.path, b.stream, b.size) == ("b", await store.head("b"), 4)
        assert (a.stream.tail, b.stream.closed) == (3, True)

    async def test_pages_follow_each_other_in_order(self, store: CataloguedStore) -> None:
        names = ["a", "a/b", "a/c", "a0", "B", "z", "ä", "☃", "🐍"]
        for name in reversed(names):
            await store.create(name, NewStream(TEXT))
        found: list[str] = []
        while page := await paths(store, after=found[-1] if found else "", limit=2):
            found += page
        assert found == sorted(names)

    @pytest.mark.parametrize(
        ("prefix", "after", "found"),
        [
            ("chat-", "", ["chat-1", "chat-10", "chat-2"]),
            ("chat-1", "", ["chat-1", "chat-10"]),
            ("chat-", "chat-1", ["chat-10", "chat-2"]),
            ("chat-", "zzz", []),
            ("b", "a", ["b%", "b_"]),
            ("b%", "", ["b%"]),
            ("nothing", "", []),
        ],
    )
    async def test_a_prefix_is_literal(
        self, store: CataloguedStore, prefix: str, after: str, found: list[str]
    ) -> None:
        for name in ("chat-1", "chat-10", "chat-2", "b%", "b_", "chat", "d"):
            await store.create(name, NewStream(TEXT))
        assert await paths(store, prefix=prefix, after=after) == found

    async def test_what_is_gone_is_not_listed(self, store: CataloguedStore, clock: Clock) -> None:
        await store.create("deleted", NewStream(TEXT))
        await store.create("ends", NewStream(TEXT, Expiry(expires_at="2027-01-15T08:01:00Z")))
        await store.create("mortal", MORTAL)
        await store.create("stays", NewStream(TEXT))
        await store.delete("deleted")
        assert await paths(store) == ["ends", "mortal", "stays"]
        clock.now += 3600
        assert await paths(store, limit=1) == ["stays"]

    async def test_to_be_listed_is_no_use(self, store: CataloguedStore, clock: Clock) -> None:
        await store.create("a", MORTAL)
        clock.now += 8
        (listed,) = await store.scan(limit=1)
        clock.now += 8
        assert listed.stream.ends is not None
        assert listed.stream.ends < clock.now
        with pytest.raises(StreamNotFound):
            await store.head("a")

    async def test_sweeping_erases_what_has_expired_and_nothing_else(
        self, store: CataloguedStore, clock: Clock
    ) -> None:
        for number in range(5):
            await store.create(f"mortal-{number}", MORTAL)
        await store.create("ends", NewStream(TEXT, Expiry(expires_at="2027-01-15T08:01:00Z")))
        await store.create("later", NewStream(TEXT, Expiry(ttl=100)))
        await store.create("stays", NewStream(TEXT, batch=Batch(b"x", 1)))
        assert await store.sweep(limit=100) == 0
        clock.now += 61
        assert [await store.sweep(limit=4) for _ in range(3)] == [4, 2, 0]
        assert await paths(store) == ["later", "stays"]
        assert (await store.read("stays", 0, limit=ALL)).data == b"x"

    async def test_what_is_used_is_not_swept(self, store: CataloguedStore, clock: Clock) -> None:
        for path in ("read", "written", "left"):
            await store.create(path, MORTAL)
        clock.now += 8
        await store.read("read", 0, limit=ALL)
        await store.append("written", text(b"x"))
        clock.now += 8
        assert await store.sweep(limit=100) == 1
        assert await paths(store) == ["read", "written"]
        clock.now += 8
        assert await store.sweep(limit=100) == 2

    async def test_a_successor_is_not_swept_for_its_predecessor(
        self, store: CataloguedStore, clock: Clock
    ) -> None:
        await store.create("a", MORTAL)
        await store.delete("a")
        await store.create("a", NewStream(TEXT))
        clock.now += 60
        assert await store.sweep(limit=100) == 0
        assert await paths(store) == ["a"]

    async def test_closed_streams_expire_too(self, store: CataloguedStore, clock: Clock) -> None:
        await store.create("a", MORTAL)
        await store.append("a", Append(close=True))
        clock.now += 60
        assert await store.sweep(limit=100) == 1

    async def test_a_source_that_expires_stays_for_its_forks_but_is_not_listed(
        self, store: CataloguedStore, clock: Clock
    ) -> None:
        await store.create("source", NewStream(TEXT, Expiry(ttl=10), Batch(b"past", 4)))
        await store.create("fork", NewStream("", Expiry(ttl=1000), fork=Fork("source")))
        source = next(listed for listed in await store.scan(limit=10) if listed.path == "source")
        assert source.stream.forks == 1
        clock.now += 60
        await store.sweep(limit=100)
        assert await paths(store) == ["fork"]
        assert await store.sweep(limit=100) == 0
        assert (await store.read("fork", 0, limit=ALL)).data == b"past"
        clock.now += 2000
        assert await store.sweep(limit=100) == 1
        assert await paths(store) == []

    async def test_a_closed_store_lists_nothing(self, store: CataloguedStore) -> None:
        await store.aclose()
        with pytest.raises(Unavailable):
            await store.scan(limit=1)
        with pytest.raises(Unavailable):
            await store.sweep(limit=1)
