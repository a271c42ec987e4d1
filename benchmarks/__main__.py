"""`make bench`: measures, prints the table, and with --write puts it into README.md."""

import argparse
import sys
from pathlib import Path
from typing import Final

from benchmarks import chat, loops, machine, peers, rounds, table, through
from benchmarks.rounds import Scale
from benchmarks.table import Row

README: Final = Path(__file__).with_name("README.md")
BEGIN: Final = "<!-- measured -->\n"
END: Final = "<!-- /measured -->\n"

_ALONE: Final = {
    "flat": rounds.flatness,
    "orm": rounds.beside_django,
    "across": rounds.across,
    "through": through.through,
    "answers": chat.answers,
    "sockets": chat.sockets,
    "opening": chat.opening,
}
_QUICK: Final = Scale(rounds=3, seconds=0.6, live_seconds=1.5, messages=20_000, streams=2_000, turns=500)


def main() -> None:
    arguments = _arguments()
    peers.pin_generator()
    conditions, rows = loops.run(_measure(arguments))
    print(f"{conditions}\n{table.render(rows)}\n")
    if arguments.write:
        _write(conditions, rows)


async def _measure(arguments: argparse.Namespace) -> tuple[str, list[Row]]:
    scale = _scale(arguments)
    wanted = arguments.only or [*rounds.WORKS, *_ALONE]
    ceiling = await rounds.ceiling(scale)
    together = [name for name in rounds.WORKS if name in wanted]
    rows = await rounds.side_by_side(together, scale, arguments.directory, _say) if together else []
    for name, measure in _ALONE.items():
        if name in wanted:
            rows += await measure(scale, arguments.directory, _say)
    conditions = (
        f"{machine.describe(arguments.directory)} Medians of {scale.rounds} rounds.\n"
        f"The load generator's ceiling is {table.figure(ceiling)} requests/s.\n"
    )
    return conditions, rows


def _scale(arguments: argparse.Namespace) -> Scale:
    if arguments.quick:
        return _QUICK
    return Scale(messages=1_000_000, streams=100_000) if arguments.large else Scale()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="rougher figures in under 90 seconds")
    parser.add_argument(
        "--large", action="store_true", help="flatness up to 1 000 000 messages, 100 000 streams"
    )
    parser.add_argument("--only", nargs="+", choices=[*rounds.WORKS, *_ALONE], help="leave out the rest")
    parser.add_argument("--write", action="store_true", help="put the rows into benchmarks/README.md")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("/var/tmp"),
        help="where the servers keep their files, on a disk",
    )
    return parser.parse_args()


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _write(conditions: str, rows: list[Row]) -> None:
    head, _, rest = README.read_text().partition(BEGIN)
    before, _, tail = rest.partition(END)
    README.write_text(f"{head}{BEGIN}\n{conditions}\n{table.render(rows, before=before)}\n\n{END}{tail}")


if __name__ == "__main__":
    main()
