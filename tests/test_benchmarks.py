"""The benchmark's table says what the rounds measured. Nothing here is timed."""

import pytest

from benchmarks.client import parse
from benchmarks.table import Row, Target, render


@pytest.mark.parametrize(
    ("target", "value", "verdict"),
    [
        (Target(2.5, 3.5), 2.49, "below"),
        (Target(2.5, 3.5), 2.5, "ok"),
        (Target(2.5, 3.5), 3.5, "goal"),
        (Target(0.6, at_most=True), 0.6, "ok"),
        (Target(0.6, at_most=True), 0.61, "below"),
    ],
)
def test_verdicts(target: Target, value: float, verdict: str) -> None:
    assert target.verdict(value) == verdict


def test_the_ratio_is_the_median_of_the_rounds_and_not_that_of_the_medians() -> None:
    row = Row("work", "a/s", "other", [10.0, 100.0, 20.0], [1.0, 100.0, 20.0], Target(1, 9))

    cells = row.cells()

    assert cells[2] == "20"  # the medians stand by themselves
    assert cells[4] == "20"
    assert cells[5:7] == ["1.00", "1.00 to 10.00"]
    assert row.verdict == "ok"


def test_a_figure_without_another_is_held_to_its_own_bound() -> None:
    row = Row("write", "ms", "", [12.0, 60.0, 55.0], [], Target(50, at_most=True))

    assert row.verdict == "below"
    assert row.cells()[4:7] == ["", "", ""]


def test_the_table_is_aligned() -> None:
    row = Row("work", "a/s", "other", [12_345.0], [3.0], Target(1))

    lines = render([row]).splitlines()

    assert len({len(line) for line in lines}) == 1
    assert "| 12 300 " in lines[2]


def test_rows_that_were_not_measured_again_stay() -> None:
    old = [Row(work, "ms", "", [1.0], [], Target(5, at_most=True)) for work in ("one", "other")]
    new = [Row(work, "ms", "", [2.0], [], Target(5, at_most=True)) for work in ("other", "third")]
    lines = render(new, before=f"Some text.\n\n{render(old)}\n").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:4]] for line in lines[2:]]
    assert cells == [["one", "ms", "1"], ["other", "ms", "2"], ["third", "ms", "2"]]


@pytest.mark.parametrize(
    ("received", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc"),
    ],
)
def test_an_answer_is_read_when_and_only_when_it_is_whole(received: bytes, body: bytes) -> None:
    answer = parse(bytearray(received))

    assert answer is not None
    assert answer.body == body
    assert all(parse(bytearray(received[:end])) is None for end in range(len(received)))
