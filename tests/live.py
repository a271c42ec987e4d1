"""A live server for tests that need one: a process of its own, on a free port, with a database of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeAlias

ROOT = Path(__file__).resolve().parent.parent
STARTUP_SECONDS = 60.0
GRACE_SECONDS = 5.0

ServerName: TypeAlias = Literal["uvicorn", "workers", "daphne", "unmounted", "mortal", "wsgi"]


class LiveServer:
    """`project.asgi:application` on the files in ``directory``, in a process that may die and come again.

    ``env`` is added to its environment, which otherwise holds only what is written here. Several servers may
    share a directory; the port is one server's for life.
    """

    def __init__(
        self,
        directory: Path,
        *,
        server: ServerName = "uvicorn",
        env: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        self.directory = directory
        self.log = directory / "server.log"
        self._port = port or free_port()
        self._command = _command(server, self._port)
        self.environment = _environment(directory) | dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def base(self) -> str:
        """Its URL, without a trailing slash."""
        return f"http://127.0.0.1:{self._port}"

    def migrate(self) -> None:
        """Make the database, or bring it up to date, and leave a note of where it is."""
        (self.directory / "database.url").write_text(self.environment["DATABASE_URL"])
        self.manage("migrate", "--verbosity=0")

    def manage(self, *arguments: str, **env: str) -> None:
        """Run a command of ``manage.py`` on its database."""
        command = [sys.executable, "manage.py", *arguments]
        subprocess.run(command, cwd=ROOT, env=self.environment | env, check=True)

    def start(self) -> None:
        """Returns when it listens. Raises RuntimeError with the end of its log when it does not."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its workers are in it
            )
        _wait_until_it_listens(self._process, self._port, self.log)

    def freeze(self) -> None:
        """Stop it where it stands; returns when it does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """Let it go on as if nothing had happened."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def interrupt(self) -> None:
        """As a developer does with Ctrl-C."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)

    def died(self) -> bool:
        """Whether it has been killed, or has killed itself."""
        assert self._process is not None
        return self._process.poll() == -signal.SIGKILL

    def kill(self) -> None:
        """As the kernel does when memory runs out: not one more instruction."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def terminate(self) -> None:
        """As a deploy does: asked to end, and not waited for."""
        assert self._process is not None
        self._process.terminate()

    def end(self, *, within: float = GRACE_SECONDS) -> bool:
        """As a deploy does; whether it ended by itself, in so many seconds."""
        if self._process is None:
            return True
        self._process.terminate()
        return self.ends(within=within)

    def ends(self, *, within: float) -> bool:
        """Whether it ends by itself in so many seconds; if not, it is killed."""
        assert self._process is not None
        ended = _exited(self._process, within=within)
        if not ended:
            self.kill()
        return ended


@contextmanager
def live_server(
    server: ServerName = "uvicorn",
    *,
    env: Mapping[str, str] | None = None,
    directory: Path | None = None,
    port: int | None = None,
) -> Iterator[str]:
    """Serve until the `with` ends; yields the base URL.

    ``directory`` keeps the database: name the same one twice, and the same ``port``, to restart a server.
    """
    with TemporaryDirectory(prefix="durable-chat-") as temporary:
        live = LiveServer(directory or Path(temporary), server=server, env=env, port=port)
        live.migrate()
        try:
            live.start()
            yield live.base
        finally:
            live.end()


def _environment(home: Path) -> dict[str, str]:
    """Named one by one, so that neither a developer's shell nor a `.env` decides what is tested."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", str(home)),
        "PYTHONUNBUFFERED": "1",
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "DEBUG": "true",
        "SECRET_KEY": "only-for-tests",
        "ALLOWED_HOSTS": "127.0.0.1,localhost",
        "CSRF_TRUSTED_ORIGINS": "",
        "DRAIN_SECONDS": "0",  # nobody waits for what a test leaves behind
        "DATABASE_URL": f"sqlite:///{home / 'live.sqlite3'}",
    }


def _command(server: ServerName, port: int) -> list[str]:
    address = ["--host=127.0.0.1", f"--port={port}", "--timeout-graceful-shutdown=1"]
    return [
        sys.executable,
        *{
            "uvicorn": ["-m", "uvicorn", *address, "project.asgi:application"],
            "workers": ["-m", "uvicorn", *address, "--workers=2", "project.asgi:application"],
            "daphne": ["-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "project.asgi:application"],
            "unmounted": ["-m", "uvicorn", *address, "tests.faults.unmounted:application"],
            "mortal": ["-m", "uvicorn", *address, "tests.faults.mortal:application"],
            "wsgi": [
                "manage.py",
                "runserver",
                "--noreload",
                "--settings=tests.faults.wsgi_site",
                f"127.0.0.1:{port}",
            ],
        }[server],
    ]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if _exited(process, within=0.05):
                break
        else:
            return
    raise RuntimeError(f"The server did not start:\n{log.read_text(errors='replace')[-4000:]}")


def _exited(process: subprocess.Popen[bytes], *, within: float) -> bool:
    try:
        process.wait(timeout=within)
    except subprocess.TimeoutExpired:
        return False
    return True
