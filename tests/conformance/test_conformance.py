"""The official suite of the protocol, from npm, against a live server over each store."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.streams import postgres

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
STORES = ("memory", "sqlite", "postgres")
PATIENCE_SECONDS = 600

EXPECTED_TO_PASS = 332  # of 0.3.6; fewer means that the suite did not run as a whole


@contextmanager
def place(store: str, directory: Path) -> Iterator[str]:
    """Where a server keeps its streams."""
    if store == "postgres":
        with postgres.schema() as schema:
            yield f"postgres:{schema.name}"
    else:
        yield str(directory / "streams.sqlite3") if store == "sqlite" else ""


@contextmanager
def serving(place: str) -> Iterator[str]:
    """A server in a process of its own; yields its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.conformance.serve", place],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process, process.stdout:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def run_suite(url: str, report: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["npx", "vitest", "run", "--reporter=json", f"--outputFile={report}"],
        cwd=HERE,
        env={**os.environ, "CONFORMANCE_TEST_URL": url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The suite's verdicts by store; it runs against all of them at once, for it mostly waits."""
    if not (HERE / "node_modules").is_dir():
        pytest.fail(
            "The official suite is not installed: `make test` does that (npm ci in tests/conformance)."
        )
    directory = tmp_path_factory.mktemp("conformance")
    stores = [store for store in STORES if store != "postgres" or not postgres.why_not()]
    reports = {store: directory / f"{store}.json" for store in stores}
    with ExitStack() as stack:
        suites = [
            run_suite(stack.enter_context(serving(stack.enter_context(place(store, directory)))), report)
            for store, report in reports.items()
        ]
        for suite in suites:
            suite.wait(PATIENCE_SECONDS)
    return {store: verdicts(report) for store, report in reports.items()}


def verdicts(report: Path) -> list[dict[str, Any]]:
    files = json.loads(report.read_text())["testResults"]
    return [verdict for file in files for verdict in file["assertionResults"]]


@pytest.mark.parametrize("store", STORES)
def test_the_official_suite_passes(results: dict[str, list[dict[str, Any]]], store: str) -> None:
    if store not in results:
        pytest.skip(postgres.why_not())
    failed = [
        f"{verdict['fullName']}: {' '.join(verdict['failureMessages'])[:500]}"
        for verdict in results[store]
        if verdict["status"] == "failed"
    ]
    assert not failed, "\n".join(failed)
    assert sum(verdict["status"] == "passed" for verdict in results[store]) >= EXPECTED_TO_PASS
