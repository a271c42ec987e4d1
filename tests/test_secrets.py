"""Secrets of two layers: shown to nobody, and of two types that do not mix."""

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from durable_chat.keys import ModelKey
from durable_chat.messages import Prompt
from durable_chat.streams.protocol.secrets import Secret, StreamsSecret
from tests.live import ROOT

MIXED = """
from durable_chat.connections import http_transport
from durable_chat.keys import ModelKey
from durable_chat.messages import Prompt
from durable_chat.streams.client.http import HTTPHandler
from durable_chat.streams.protocol.secrets import StreamsSecret

HTTPHandler("https://streams.example", http_transport, token=StreamsSecret("s"))
Prompt("c", "r", (), {}, key=ModelKey("k"))
HTTPHandler("https://streams.example", http_transport, token=ModelKey("k"))  # wrong
HTTPHandler("https://streams.example", http_transport, token="s")  # wrong
Prompt("c", "r", (), {}, key=StreamsSecret("s"))  # wrong
Prompt("c", "r", (), {}, key="k")  # wrong
"""


def test_mixing_the_two_layers_is_a_type_error(tmp_path: Path) -> None:
    snippet = tmp_path / "mixed.py"
    snippet.write_text(MIXED)
    command = [sys.executable, "-m", "mypy", "--no-error-summary", str(snippet)]
    mypy = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    wrong = [number for number, line in enumerate(MIXED.splitlines(), 1) if line.endswith("# wrong")]
    told = [line for line in mypy.stdout.splitlines() if "error:" in line]
    assert [int(line.split(":")[1]) for line in told] == wrong, mypy.stdout + mypy.stderr
    assert all("[arg-type]" in line for line in told)


@pytest.mark.parametrize("kind", [ModelKey, StreamsSecret])
def test_a_secret_is_in_nothing_that_is_made_of_it(kind: type[Secret]) -> None:
    secret = kind("sentinel")
    for shown in (repr(secret), str(secret), f"{secret}", f"{[secret]}", repr(vars(kind))):
        assert "sentinel" not in shown
    for copied in (json.dumps, orjson.dumps, pickle.dumps, copy.copy, copy.deepcopy, vars):
        with pytest.raises(TypeError) as failed:
            copied(secret)
        assert "sentinel" not in str(failed.value)
    assert secret.reveal() == "sentinel"


def test_secrets_are_equal_by_kind_and_text() -> None:
    assert ModelKey("ä") == ModelKey("ä")
    assert len({ModelKey("a"), ModelKey("a"), StreamsSecret("a")}) == 2
    other: Any = StreamsSecret("a")
    assert ModelKey("a") != other
    assert ModelKey("a") != "a"
    assert not ModelKey()


def test_a_prompt_shows_its_key_to_who_asks_for_it_alone() -> None:
    prompt = Prompt("c", "r", (), {}, key=ModelKey("sentinel"))
    assert "sentinel" not in repr(prompt)
    assert prompt.api_key == "sentinel"
