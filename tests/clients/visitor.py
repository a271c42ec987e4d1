"""Somebody's browser at a live server: what Python asks of it, and what node runs in it."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any, Literal

import httpx

HERE = Path(__file__).resolve().parent
DRIVER_SECONDS = 90.0
SETTLING_SECONDS = 20.0


class Visitor:
    """Somebody's browser session at a live server."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.http = httpx.Client(base_url=base, timeout=20.0)
        self.http.get("/").raise_for_status()

    @property
    def csrf(self) -> str:
        return self.http.cookies["csrftoken"]

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.http.post(path, json=body, headers={"x-csrftoken": self.csrf})

    def begin(self) -> str:
        """Create a conversation; its id."""
        response = self.post("/api/conversations", {})
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    def hydrate(
        self, conversation: str, dialect: Literal["tanstack", "ai-sdk"] = "tanstack"
    ) -> dict[str, Any]:
        response = self.http.get(f"/api/conversations/{conversation}", params={"as": dialect})
        assert response.status_code == 200, response.text
        hydrated: dict[str, Any] = response.json()
        return hydrated

    def settled(self, conversation: str) -> list[tuple[str, str, str]]:
        """(id, role, text) of the stored messages once no run is active.

        The last chunk of a run is seen a moment before its message is stored.
        """
        deadline = time.monotonic() + SETTLING_SECONDS
        while time.monotonic() < deadline:
            hydrated = self.hydrate(conversation)
            if hydrated["activeRun"] is None:
                return [(m["id"], m["role"], _text(m)) for m in hydrated["messages"]]
            time.sleep(0.02)
        raise AssertionError("The run has not ended.")

    def chunks(self, conversation: str) -> list[dict[str, Any]]:
        """All that the conversation's stream holds, by the read proxy."""
        chunks: list[dict[str, Any]] = []
        query = {"id": conversation, "offset": "-1"}
        while True:
            page = self.http.get("/api/chat-stream", params=query)
            assert page.status_code == 200, page.text
            chunks.extend(page.json())
            if page.headers.get("stream-up-to-date") == "true":
                return chunks
            query["offset"] = page.headers["stream-next-offset"]

    def counts(self, conversation: str) -> dict[str, int]:
        """How many runs, echoes of the user's messages and terminal chunks the stream holds."""
        chunks = self.chunks(conversation)
        types = [chunk["type"] for chunk in chunks]
        echoes = [c for c in chunks if c["type"] == "TEXT_MESSAGE_START" and c["role"] == "user"]
        return {
            "runs": types.count("RUN_STARTED"),
            "echoes": len(echoes),
            "terminals": types.count("RUN_FINISHED") + types.count("RUN_ERROR"),
        }

    def drive(self, driver: str, conversation: str, **arguments: Any) -> dict[str, Any]:
        """Run ``drivers/<driver>.mjs`` as this visitor's browser; what it reports."""
        cookie = "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())
        given = {"base": self.base, "cookie": cookie, "csrf": self.csrf, "id": conversation, **arguments}
        process = subprocess.run(
            ["node", f"drivers/{driver}.mjs", json.dumps(given)],
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=DRIVER_SECONDS,
            check=False,
        )
        assert process.stdout, process.stderr
        result: dict[str, Any] = json.loads(process.stdout)
        assert "failure" not in result, result["failure"]
        return result


def _text(message: dict[str, Any]) -> str:
    return "".join(part["content"] for part in message["parts"] if part["type"] == "text")


def words(count: int) -> str:
    """What the scripted provider answers to `words=<count>`."""
    return "".join(f"w{number} " for number in range(count))


def texts(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(message["role"], message["text"]) for message in messages]


def stored(messages: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """A client's messages as ``Visitor.settled`` gives the server's."""
    return [(message["id"], message["role"], message["text"]) for message in messages]


def assert_grew(client: dict[str, Any]) -> None:
    """It came bit by bit, and nothing that was shown was ever taken back or written over."""
    assert client["rewinds"] == []
    assert client["steps"] > 3
