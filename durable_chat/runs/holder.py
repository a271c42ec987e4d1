"""Who holds a run: this process, as others see it."""

import os
import secrets
import socket
from typing import Final

_NAME: Final = secrets.token_hex(4)


def holder() -> str:
    """Host, pid and a name that no earlier process had; for people who look at a run."""
    return f"{socket.gethostname()[:64]}:{os.getpid()}:{_NAME}"
