"""The server by itself, on a site without chat: served, commanded and checked as processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.test import override_settings

from durable_chat.streams.embedded import process
from tests.live import free_port

ROOT = Path(__file__).resolve().parents[2]


class Alone:
    """A site in a directory: what `tests.streams.alone` configures."""

    def __init__(self, home: Path, settings: str = "{}") -> None:
        self.environment = {
            "PATH": os.environ["PATH"],
            "DJANGO_SETTINGS_MODULE": "tests.streams.alone",
            "STREAMS_HOME": str(home),
            "STREAMS_SETTINGS": settings,
        }

    def manage(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-W", "error", "-m", "django", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, input=stdin, capture_output=True, check=False
        )


@pytest.fixture
def alone(tmp_path: Path) -> Alone:
    return Alone(tmp_path)


@pytest.fixture
def url(alone: Alone) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "tests.streams.alone:asgi", f"--port={port}"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=alone.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    with process, process.stdout:
        try:
            assert any("Uvicorn running" in line for line in process.stdout)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def test_one_app_and_one_line_are_a_server(url: str, alone: Alone) -> None:
    with httpx.Client(base_url=url, headers={"authorization": "Bearer w"}) as http:
        made = http.put("/v1/stream/chat/1", json=[1], headers={"content-type": "application/json"})
        assert (made.status_code, made.headers["location"]) == (201, f"{url}/v1/stream/chat/1")
        read = http.get("/v1/stream/chat/1", headers={"authorization": "Bearer r"})
        assert read.json() == [1]
        assert http.delete("/v1/stream/chat/1", headers={"authorization": "Bearer r"}).status_code == 403
        assert http.get("/v1/stream/chat/1", headers={"authorization": ""}).status_code == 401
        assert http.get("/somewhere/else").headers["content-type"].startswith("text/html")  # Django's own 404
        # A command is another process on the same streams.
        assert alone.manage("durable_streams", "append", "chat/1", stdin=b'{"n": 2}\n').returncode == 0
        assert http.get("/v1/stream/chat/1").json() == [1, {"n": 2}]


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        ({"type": "http", "path": "/streams/a", "root_path": ""}, 401),
        ({"type": "http", "path": "/site/streams/a", "root_path": "/site"}, 401),
        ({"type": "http", "path": "/streams", "root_path": ""}, 299),
        ({"type": "http", "path": "/v1/stream/a"}, 299),
        ({"type": "websocket", "path": "/streams/a"}, 299),
        ({"type": "lifespan"}, 299),
    ],
)
async def test_all_else_is_djangos(scope: dict[str, Any], status: int) -> None:
    sent: list[Any] = []

    async def django(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 299, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"method": "GET", "headers": [], "query_string": b"", **scope}
    with override_settings(DURABLE_STREAMS={"STORE": "memory"}):
        await process.mount(django, root="/streams/")(scope, send, send)
    assert sent[0]["status"] == status


@pytest.mark.parametrize("root", ["", "streams/", "/streams"])
def test_a_root_has_its_slashes(root: str) -> None:
    with pytest.raises(ValueError, match="slash"):
        process.mount(None, root=root)


def test_every_verb_has_its_exit_status(alone: Alone) -> None:
    def manage(*arguments: str, stdin: bytes = b"") -> tuple[int, bytes]:
        answer = alone.manage("durable_streams", *arguments, stdin=stdin)
        assert b"Traceback" not in answer.stderr
        return answer.returncode, answer.stdout

    assert manage("show", "a") == (3, b"")
    assert manage("append", "a", "--create", "image/png", "--close", stdin=b"\x89PNG\r\n\x00")[0] == 0
    assert manage("tail", "a") == (0, b"\x89PNG\r\n\x00")
    assert manage("append", "a", stdin=b"more")[0] == 1
    assert manage("tail", "a", "--offset", "tomorrow")[0] == 2


def test_whoever_has_seen_enough_may_leave(alone: Alone) -> None:
    lines = b"".join(b"%d\n" % number for number in range(200_000))
    append = ("durable_streams", "append", "a", "--create", "application/json")
    assert alone.manage(*append, stdin=lines).returncode == 0
    command = f"{sys.executable} -m django durable_streams tail a --no-follow | head -n 3"
    shell = ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"]
    left = subprocess.run(shell, cwd=ROOT, env=alone.environment, capture_output=True, check=False)
    assert left.stdout == b"0\n1\n2\n"
    assert left.returncode == 1
    assert b"Traceback" not in left.stderr
    assert b"Exception" not in left.stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("{'WRITE_TOKENS': 's3cret'}", b"did you mean WRITE_TOKEN?"),
        ("{'STORE': 's3cret'}", b"must be one of"),
    ],
)
def test_wrong_settings_are_an_error_of_check(tmp_path: Path, settings: str, said: bytes) -> None:
    assert Alone(tmp_path).manage("check").returncode == 0
    answer = Alone(tmp_path, settings).manage("check")
    assert answer.returncode == 1
    assert b"durable_streams.E001" in answer.stderr
    assert said in answer.stderr
    assert b"s3cret" not in answer.stderr


def test_streams_in_memory_are_seen_by_no_command(tmp_path: Path) -> None:
    answer = Alone(tmp_path, "{'STORE': 'memory'}").manage("durable_streams", "list")
    assert answer.returncode == 1
    assert b"memory" in answer.stderr
