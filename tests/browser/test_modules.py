"""The modules that need no page, in node: `*.test.mjs` beside this file."""

import subprocess
from pathlib import Path

import pytest

from tests.browser.conftest import copied

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_module(tmp_path: Path, name: str) -> None:
    command = ["node", "--test", f"tests/browser/{name}"]
    result = subprocess.run(command, cwd=copied(tmp_path), capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
