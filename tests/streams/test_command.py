"""`manage.py durable_streams` in this process: what it prints, reads, follows and asks."""

import asyncio
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import orjson
import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from durable_chat.streams.client import StreamClient
from durable_chat.streams.embedded import process, terminal
from durable_chat.streams.embedded.management.commands.durable_streams import Command
from durable_chat.streams.protocol.expiry import Expiry
from durable_chat.streams.protocol.offsets import encode
from durable_chat.streams.stores.base import Append, Batch, NewStream

JSON = "application/json"
TEXT = "text/plain"


@pytest.fixture(autouse=True)
def _streams(tmp_path: Path) -> Iterator[None]:
    with override_settings(DURABLE_STREAMS={"SQLITE_PATH": tmp_path / "streams.sqlite3"}):
        yield
    process.close()


class Output(io.TextIOWrapper):
    """What is printed, as bytes too."""

    def __init__(self) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding="utf-8", newline="\n")

    def text(self) -> str:
        self.flush()
        return self.bytes.getvalue().decode()


def run(*arguments: str, stdin: bytes | None = None) -> tuple[str, str]:
    """(what it printed to stdout, to stderr)"""
    out, err = Output(), Output()
    with pytest.MonkeyPatch.context() as patch:
        if stdin is not None:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        call_command(Command(), *arguments, stdout=out, stderr=err)
    return out.text(), err.text()


def refused(*arguments: str, stdin: bytes | None = None) -> CommandError:
    with pytest.raises(CommandError) as error:
        run(*arguments, stdin=stdin)
    return error.value


def create(name: str, new: NewStream) -> None:
    asyncio.run(process.store().create(name, new))


def items(name: str) -> list[Any]:
    return list(asyncio.run(StreamClient(process.handle).read(name)).items)


class TestList:
    def test_all_or_some(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("durable_chat.streams.embedded.management.commands.durable_streams._PAGE", 2)
        for number in range(5):
            create(f"a{number}", NewStream(JSON, batch=Batch(b"1", 1)))
        create("b", NewStream(TEXT, closed=True))
        assert len(run("list")[0].splitlines()) == 6
        assert run("list", "--prefix", "b")[0].split() == ["0", "0", "closed", TEXT, "b"]
        assert [orjson.loads(line)["path"] for line in run("list", "--json", "--limit", "3")[0].split()] == [
            "a0",
            "a1",
            "a2",
        ]
        assert run("list", "--prefix", "c") == ("", "")

    def test_a_name_is_one_that_a_stream_can_have(self) -> None:
        for given in (("list", "--prefix", "\udcff"), ("show", "\udcff"), ("show", "a\0")):
            assert "not a name that a stream can have" in str(refused(*given))

    def test_a_limit_is_a_number(self) -> None:
        assert "not a number above 0" in str(refused("list", "--limit", "0"))


class TestShow:
    def test_for_people_and_programs(self) -> None:
        create("a", NewStream(JSON, Expiry(ttl=60), Batch(b"1,22", 2)))
        create("ab", NewStream(JSON))
        shown = orjson.loads(run("show", "a", "--json")[0])
        assert shown["used"] < shown["ends"]
        del shown["used"], shown["ends"]
        assert shown == {
            "path": "a",
            "contentType": JSON,
            "size": 4,
            "length": 2,
            "tail": encode(2),
            "closed": False,
            "ttl": 60,
            "expiresAt": None,
            "forkedFrom": None,
            "forks": 0,
        }
        assert f"tail         {encode(2)}\n" in run("show", "a")[0]

    def test_a_life_beyond_the_calendar(self) -> None:
        create("a", NewStream(TEXT, Expiry(ttl=10**14)))
        assert orjson.loads(run("show", "a", "--json")[0])["ends"] is None

    def test_what_is_not_there(self) -> None:
        error = refused("show", "a")
        assert (error.returncode, str(error)) == (3, "There is no stream 'a'.")


class TestAppend:
    def test_a_message_a_line(self) -> None:
        create("a", NewStream(JSON))
        lines = b'{"a": "\\u2028"}\n\n  [1, 2]\r\n"last, without an end of line"'
        out, err = run("append", "a", stdin=lines)
        assert (out, err) == ("", f"Appended 3; the tail is {encode(3)}.\n")
        assert items("a") == [{"a": "\u2028"}, [1, 2], "last, without an end of line"]

    def test_a_line_that_is_no_json_ends_it_behind_those_before(self) -> None:
        create("a", NewStream(JSON))
        error = refused("append", "a", stdin=b"1\n2\n{\n4\n")
        assert (error.returncode, str(error)) == (
            1,
            "Line 3 is not JSON; the 2 before it have been appended.",
        )
        assert items("a") == [1, 2]

    def test_lines_that_come_in_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(terminal, "_AT_ONCE", 7)
        numbers = [10**n for n in range(18)]
        out, _ = run(
            "append",
            "a",
            "--create",
            JSON,
            "--close",
            "--json",
            stdin=b"".join(b"%d\n" % number for number in numbers),
        )
        assert orjson.loads(out) == {"appended": 18, "tail": encode(18)}
        assert items("a") == numbers
        assert orjson.loads(run("show", "a", "--json")[0])["closed"]

    def test_bytes_as_they_are(self) -> None:
        every = bytes(range(256)) * 5000
        run("append", "a", "--create", "image/png", stdin=every)
        out = Output()
        call_command(Command(), "tail", "a", "--no-follow", stdout=out, stderr=Output())
        out.flush()
        assert out.bytes.getvalue() == every

    def test_nothing(self) -> None:
        create("a", NewStream(JSON))
        assert "Appended 0" in run("append", "a", stdin=b"")[1]

    def test_what_the_rules_refuse(self) -> None:
        create("a", NewStream(TEXT, closed=True))
        assert refused("append", "a", stdin=b"x").returncode == 1
        assert refused("append", "a", "--create", JSON, stdin=b"1").returncode == 1
        assert refused("append", "b", stdin=b"x").returncode == 3


class TestTail:
    def test_is_resumable(self) -> None:
        create("a", NewStream(JSON, batch=Batch(b'1,"two"', 2)))
        out, err = run("tail", "a", "--no-follow")
        assert (out, err) == ('1\n"two"\n', f"Go on with --offset {encode(2)}.\n")
        asyncio.run(process.store().append("a", Append(Batch(b"3", 1), JSON)))
        assert run("tail", "a", "--no-follow", "--offset", encode(2))[0] == "3\n"
        assert run("tail", "a", "--no-follow", "--offset=now")[0] == ""
        assert run("tail", "a", "--no-follow", "--offset=-1")[0] == '1\n"two"\n3\n'

    def test_for_programs(self) -> None:
        create("a", NewStream(JSON, batch=Batch(b"1,2", 2), closed=True))
        create("b", NewStream(TEXT, batch=Batch(b"\xff", 1)))
        assert orjson.loads(run("tail", "a", "--json")[0]) == {
            "offset": encode(2),
            "closed": True,
            "messages": [1, 2],
        }
        assert orjson.loads(run("tail", "b", "--json", "--no-follow")[0])["base64"] == "/w=="

    def test_follows_until_the_stream_is_closed(self) -> None:
        create("a", NewStream(JSON, batch=Batch(b"0", 1)))

        async def write() -> None:
            for number in range(1, 50):
                await process.store().append("a", Append(Batch(b"%d" % number, 1), JSON))
            await process.store().append("a", Append(close=True))

        writer = Thread(target=lambda: asyncio.run(write()))
        writer.start()
        out, err = run("tail", "a")
        writer.join()
        assert out == "".join(f"{number}\n" for number in range(50))
        assert err == f"Go on with --offset {encode(50)}.\n"

    def test_ends_when_the_stream_is_deleted_be_it_that_another_took_its_place(self) -> None:
        create("a", NewStream(JSON, batch=Batch(b"0", 1)))

        async def replace() -> None:
            await process.store().delete("a")
            await process.store().create("a", NewStream(JSON, batch=Batch(b"0", 1)))

        replacing = Thread(target=lambda: asyncio.run(replace()))
        out = _Starts(replacing)
        with pytest.raises(CommandError) as error:
            call_command(Command(), "tail", "a", stdout=out, stderr=Output())
        replacing.join()
        assert error.value.returncode == 3

    def test_a_long_read_tells_how_far_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(terminal, "_AT_ONCE", 100)
        monkeypatch.setattr(terminal, "_PROGRESS_SECONDS", 0.0)
        create("a", NewStream(TEXT))
        for _ in range(4):
            asyncio.run(process.store().append("a", Append(Batch(b"x" * 100, 100), TEXT)))
        _, err = run("tail", "a", "--no-follow")
        assert err.splitlines()[:3] == ["100 of 400 (25%)", "200 of 400 (50%)", "300 of 400 (75%)"]

    def test_an_offset_that_is_none(self) -> None:
        create("a", NewStream(JSON, batch=Batch(b"1,2", 2)))
        assert "not an offset" in str(refused("tail", "a", "--offset", "yesterday"))
        assert refused("tail", "a", "--offset", encode(1)).returncode == 1


class _Starts(Output):
    """Starts a thread when the first thing is printed."""

    def __init__(self, thread: Thread) -> None:
        super().__init__()
        self._thread: Thread | None = thread

    def write(self, text: str) -> int:
        thread, self._thread = getattr(self, "_thread", None), None
        if thread is not None:
            thread.start()
        return super().write(text)


class TestDelete:
    @pytest.mark.parametrize(("answer", "stays"), [("y", False), ("YES", False), ("", True), ("n", True)])
    def test_asks(self, monkeypatch: pytest.MonkeyPatch, answer: str, stays: bool) -> None:
        create("a", NewStream(TEXT))
        monkeypatch.setattr("builtins.input", lambda question: answer)
        monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
        if stays:
            assert str(refused("delete", "a")) == "Nothing was deleted."
        else:
            run("delete", "a")
        assert bool(run("list")[0]) == stays

    def test_needs_a_yes_when_nobody_can_be_asked(self) -> None:
        create("a", NewStream(TEXT))
        assert "--yes" in str(refused("delete", "a", stdin=b"yes\n"))
        assert run("delete", "a", "--yes") == ("", "Deleted 'a'.\n")
        assert refused("delete", "a", "--yes").returncode == 3


class TestSweep:
    def test_erases_what_has_expired(self) -> None:
        create("old", NewStream(TEXT, Expiry(expires_at="2001-01-01T00:00:00Z")))
        create("stays", NewStream(TEXT))
        assert orjson.loads(run("sweep", "--json")[0]) == {"swept": 1}
        assert run("sweep")[1] == "Erased 0 expired streams.\n"
        assert "stays" in run("list")[0]


def test_a_store_that_cannot_answer(tmp_path: Path) -> None:
    with override_settings(DURABLE_STREAMS={"SQLITE_PATH": tmp_path / "missing" / "streams.sqlite3"}):
        assert refused("list").returncode == 4


def test_streams_in_memory(tmp_path: Path) -> None:
    with override_settings(DURABLE_STREAMS={"STORE": "memory"}):
        assert "memory" in str(refused("list"))
