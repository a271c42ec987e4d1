"""What every door to a server answers: the same cases in process and over HTTP (see test_server.py)."""

from uuid import uuid4

import pytest

from durable_chat.streams.protocol.exchange import Handler
from tests.streams.door import Door
from tests.streams.server_read_contract import Browsing, CatchingUp, LongPolling, Streaming
from tests.streams.server_write_contract import Appending, Lifecycle, Producing


class ServerContract(Lifecycle, Appending, Producing, CatchingUp, LongPolling, Streaming, Browsing):
    """All of it. Subclasses give the fixture ``handler``."""

    @pytest.fixture
    def path(self) -> str:
        return f"contract/{uuid4()}"

    @pytest.fixture
    def ask(self, handler: Handler, path: str) -> Door:
        return Door(handler, path)
