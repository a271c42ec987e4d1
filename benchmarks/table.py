"""From rounds to a table: medians, ratios, and whether they are where they should be."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final


@dataclass(frozen=True, slots=True)
class Target:
    """What a ratio must reach, and what we are after. ``at_most``: less is better."""

    floor: float
    goal: float | None = None
    at_most: bool = False

    def verdict(self, value: float) -> str:
        """``below`` the floor, ``ok``, or ``goal``."""
        if self._misses(value, self.floor):
            return "below"
        return "ok" if self.goal is None or self._misses(value, self.goal) else "goal"

    def _misses(self, value: float, bound: float) -> bool:
        return value > bound if self.at_most else value < bound

    def __str__(self) -> str:
        sign = "≤" if self.at_most else "≥"
        goal = "" if self.goal is None else f", goal {self.goal:g}"
        return f"{sign} {self.floor:g}{goal}"


@dataclass(frozen=True, slots=True)
class Row:
    """One piece of work: what each round measured of us and of the other, in ``unit``.

    Without another there is no ratio, and the target is for the figure itself.
    """

    work: str
    unit: str
    against: str
    ours: Sequence[float]
    theirs: Sequence[float]
    target: Target

    @property
    def ratios(self) -> list[float]:
        """Ours to theirs, by round: what disturbs a round disturbs both."""
        if not self.theirs:
            return []
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def verdict(self) -> str:
        return self.target.verdict(median(self.ratios or self.ours))

    def cells(self) -> list[str]:
        ratios = self.ratios
        return [
            self.work,
            self.unit,
            figure(median(self.ours)),
            self.against,
            figure(median(self.theirs)) if ratios else "",
            f"{median(ratios):.2f}" if ratios else "",
            f"{min(ratios):.2f} to {max(ratios):.2f}" if len(ratios) > 1 else "",
            str(self.target),
            self.verdict,
        ]


_HEADS: Final = ["work", "unit", "embedded", "against", "its figure", "ratio", "rounds", "target", ""]


def render(rows: Iterable[Row], *, before: str = "") -> str:
    """A table that reads as well in a terminal as in Markdown.

    ``before`` is a text with an earlier one, whose rows stay where they were not measured again.
    """
    lines = [_HEADS, *_merged(_cells_in(before), [row.cells() for row in rows])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in [lines[0], rule, *lines[1:]]
    )


def _merged(before: list[list[str]], cells: list[list[str]]) -> list[list[str]]:
    known = {_key(line): line for line in before}
    return list((known | {_key(line): line for line in cells}).values())


def _key(cells: list[str]) -> tuple[str, str]:
    """The work, and against whom."""
    return cells[0], cells[3]


def _cells_in(text: str) -> list[list[str]]:
    rows = [line.strip("|\n").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def figure(value: float) -> str:
    """Three digits are all that such a measurement is good for."""
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}".replace(",", " ")
    return f"{value:.3g}"
