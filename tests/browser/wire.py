"""A wire from browser to server that a test can cut; a browser's own "offline" leaves open streams alone."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Wire:
    """Listens on a port of its own and passes bytes on, until it is cut or a connection's allowance is up."""

    def __init__(self, base: str) -> None:
        host, port = base.removeprefix("http://").split(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.base = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self.answered = bytearray()  # all that the server has sent, of all connections
        # Bytes of answer that a connection carries before it breaks. Each carries half as much again, or a
        # slow machine would gather batches that no connection can carry.
        self.allowance: int | None = None

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread, which close() would not
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Break every connection, wherever it is."""
        with self._lock:
            for end in self._open:
                _close(end)
            self._open.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._server)
                with self._lock:
                    self._open |= {near, far}
                    self.connections += 1
                for source, target, allowance in ((near, far, None), (far, near, self.allowance)):
                    threading.Thread(
                        target=self._pass, args=(source, target, allowance, source is far), daemon=True
                    ).start()
                if self.allowance is not None:
                    self.allowance += self.allowance // 2

    def _pass(
        self, source: socket.socket, target: socket.socket, allowance: int | None, answers: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while allowance is None or allowance > 0:
                piece = source.recv(65536 if allowance is None else min(allowance, 65536))
                if not piece:
                    break
                if answers:
                    self.answered += piece
                target.sendall(piece)
                allowance = None if allowance is None else allowance - len(piece)
        _close(source)
        _close(target)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
