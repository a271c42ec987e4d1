"""Secrets that are like no other text, and the search for them in whatever anybody could read."""

import secrets
from base64 import b64encode
from collections.abc import Iterable, Mapping
from pathlib import Path

OF_THE_SITE = ("SECRET_KEY", "PROVIDER_API_KEY", "DS_EMBEDDED_WRITE_TOKEN", "DS_EMBEDDED_READ_TOKEN")


def sentinels(*names: str) -> dict[str, str]:
    """A secret for each name."""
    return {name: f"sentinel{secrets.token_hex(16)}" for name in names}


def named(told: Mapping[str, str], held: bytes) -> list[str]:
    """Which of the secrets this holds, plain or as base64."""
    texts = {name: value.encode() for name, value in told.items()}
    return [name for name, text in texts.items() if text in held or b64encode(text)[:40] in held]


def files(directories: Iterable[Path]) -> dict[str, bytes]:
    """All that lies in these, by its path."""
    found = (path for directory in directories for path in directory.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in found}


def leaks(told: Mapping[str, str], places: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """Which secret is found where."""
    return [(name, place) for place, held in places.items() for name in named(told, held)]
