"""The reference server as a process that may die and come again on its files, and the gate before it."""

import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.live import ROOT
from tests.service.gate import Gate

BENCHMARKS = ROOT / "benchmarks"
"""Has the server's package and its starter."""


class Service:
    """`@durable-streams/server` on the files in ``directory``; ``gate`` is where it is reached."""

    def __init__(self, directory: Path, *, service_id: str = "svc-tests") -> None:
        self.id = service_id
        self.secret = secrets.token_hex(16)
        self.read_secret = secrets.token_hex(16)
        self.gate = Gate(service_id, self.secret, self.read_secret)
        self.directory = directory
        self._process: subprocess.Popen[str] | None = None

    @property
    def env(self) -> Mapping[str, str]:
        """What a site's environment says of it."""
        named = {"ELECTRIC_URL": self.gate.url, "DS_SERVICE_ID": self.id}
        return {**named, "DS_SECRET": self.secret, "DS_READ_SECRET": self.read_secret}

    def start(self) -> None:
        """Returns when it listens."""
        command = ["node", str(BENCHMARKS / "serve.mjs"), str(self.directory)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        with self._process.stdout as printed:
            self.gate.upstream = printed.readline().strip()
        assert self.gate.upstream, "The reference server did not start."

    def kill(self) -> None:
        """As the kernel does when memory runs out: not one more instruction."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def running() -> Iterator[Service]:
    """A service with nothing in it."""
    if not (BENCHMARKS / "node_modules").exists():
        command = ["npm", "install", "--prefix", str(BENCHMARKS), "--no-save", "--no-audit", "--no-fund"]
        subprocess.run(command, check=True)
    with TemporaryDirectory(prefix="durable-streams-") as directory:
        service = Service(Path(directory))
        with service.gate:
            service.start()
            try:
                yield service
            finally:
                service.kill()
