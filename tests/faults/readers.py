"""The kinds of readers that people.py does not have: the one that polls, and the one that comes back."""

import json
from collections.abc import Callable, Mapping

from tests.faults.people import Away, DurableReader, Person, Reader, SocketReader


class PollingReader(DurableReader):
    """A durable reader that long-polls from the beginning."""

    async def connect(self) -> None:
        query = {"id": self.conversation, "offset": self.offset, "live": "long-poll"}
        response = await self.person.http.get("/api/chat-stream", params=query)
        if response.status_code == 503:
            raise Away
        assert response.status_code in (200, 204), response.text
        self.items += json.loads(response.content or b"[]")
        self.offset = response.headers["stream-next-offset"]


class ReturningReader(Reader):
    """Somebody who reloads at every drop: asks where the running answer is, and reads it from the start."""

    _run = ""

    async def connect(self) -> None:
        found = await self.person.reconnect(self.conversation)
        if found.status_code == 503:
            raise Away
        self._run = found.headers.get("location", self._run).rpartition("run=")[2]
        view = DurableReader(self.person, self.conversation, run=self._run)
        try:
            while not view.closed:
                await view.connect()
                self._take(view)
        finally:
            self._take(view)

    def _take(self, view: DurableReader) -> None:
        """What is read again is what was read before."""
        shorter, self.items = sorted((self.items, view.items), key=len)
        assert self.items[: len(shorter)] == shorter
        self.closed = view.closed


def viewing(person: Person, conversation: str, run_id: str) -> Reader:
    return DurableReader(person, conversation, run=run_id)


# Those of the conversation are given all of it, those of the run are closed at its end.
OF_CONVERSATION: Mapping[str, Callable[[Person, str], Reader]] = {
    "sse": DurableReader,
    "long-poll": PollingReader,
    "socket": SocketReader,
}
OF_RUN: Mapping[str, Callable[[Person, str, str], Reader]] = {
    "run": viewing,
    "reconnect": lambda person, conversation, run_id: ReturningReader(person, conversation),
}

TERMINAL = frozenset({"RUN_FINISHED", "RUN_ERROR", "finish", "error", "abort"})


def ended(reader: Reader) -> bool:
    """Whether it has seen the end of an answer."""
    return any(item["type"] in TERMINAL for item in reader.items)
