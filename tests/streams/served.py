"""A streams server in a process of its own, which may be killed, and come again on the same file."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from durable_chat.streams.client import StreamClient
from durable_chat.streams.client.http import HTTPHandler
from durable_chat.streams.client.transport import Transport

ROOT = Path(__file__).resolve().parents[2]


class Served:
    """Serves the streams in ``file`` from the moment that it is made. ``url`` is another in every life."""

    def __init__(self, file: Path) -> None:
        command = [sys.executable, "-m", "tests.conformance.serve", str(file)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        with self._process.stdout as printed:
            self.url = f"{printed.readline().strip()}/v1/stream/"

    def client(self, connections: Transport) -> StreamClient:
        return StreamClient(HTTPHandler(self.url, lambda: connections))

    def kill(self) -> None:
        """As the kernel does when memory runs out: not one more instruction."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """As a deploy does."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
            return
        self.kill()
