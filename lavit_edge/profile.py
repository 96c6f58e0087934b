"""``python -m lavit_edge.profile``: why an artifact takes the time it takes, operator by operator and block by block.

Exit codes: 0 profiled; 2 a mistake that one line on stderr explains; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from lavit_edge.cli import NARROW, Parser, new_console, new_table, run_command

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from lavit_edge.benchmark.profiling import Profile, Row

SHOWN = 0.003  # operator types with a smaller share of the time are left out of the table


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.profile", description="Say where an artifact's time goes, beside what this machine could reach.")
    p.add_argument("artifact", type=Path, help="a .pte, .onnx or .ort")
    p.add_argument("--threads", type=_threads, default=1, metavar="N", help="of the runtime")
    p.add_argument("--json", action="store_true", help="print the profile as JSON on stdout")
    return p


def _threads(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 999):
        raise argparse.ArgumentTypeError(f"threads must be a number from 1 to 999, not {text!r}")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from rich.text import Text

    from lavit_edge.benchmark.profiling import profile

    with new_console(stderr=True).status("") as status:
        found = profile(args.artifact, args.threads, lambda what: status.update(Text(f"{args.artifact.name}: {what}")))
    if args.json:
        print(json.dumps(found.to_dict(), indent=1))
    else:
        print_profile(found, new_console())
    return 0


def print_profile(found: Profile, console: Console) -> None:
    """Three tables, how the parts compare with the whole, and the verdict's sentence."""
    threads = f"{found.threads} thread{'s' * (found.threads > 1)}"
    types = _table(f"{found.artifact}: {found.precision}, {found.runtime}, {threads}", "operator", "runs in", "rate")
    for row in found.types:
        if row.share >= SHOWN:
            _add(types, row, row.name, row.place, _rate(row))
    console.print(types)
    if found.blocks:
        blocks = _table("by block", "block", "MACs %")
        for row in found.blocks:
            _add(blocks, row, row.name, f"{100 * row.macs / found.macs:.1f}" if found.macs else "-")
        console.print(blocks)
    slowest = _table(f"the slowest {len(found.slowest)}", "operator", "block", "rate")
    for row in found.slowest:
        _add(slowest, row, row.name, row.place, _rate(row))
    console.print(slowest)
    floor, least = found.floor, sum(row.floor_ms for row in found.types)
    console.print(
        f"limits of this machine in {found.runtime}, {threads}: float {floor.float_gmacs:.0f}, int8 {floor.int8_gmacs:.0f} "
        f"GMAC/s; copies {floor.gbytes:.0f} GB/s. At them all of it would take {least:.2f} ms.",
        highlight=False,
    )
    parts = f"the parts {found.parts_ms:.2f}, {100 * (found.parts_ms / found.whole_ms - 1):+.1f} % of the whole"
    console.print(
        f"a call {found.median_ms:.2f} ms; less other processes' turns {found.whole_ms:.2f}, with the profiler "
        f"{found.profiled_ms:.2f}; {parts}.",
        highlight=False,
    )
    for note in found.notes:
        console.print(note, highlight=False, style="yellow")
    console.print(found.sentence, highlight=False)


def _table(title: str, *names: str) -> Table:
    """Those figures that are not in every table fold as names do: 80 columns hold no more that may not."""
    return new_table(*names, figures=("calls", "ms", "time %", "floor ms", "of floor %"), title=title, **NARROW)


def _add(table: Table, row: Row, *cells: str) -> None:
    reached = f"{100 * row.floor_ms / row.ms:.0f}" if row.ms and row.floor_ms else "-"
    figures = (str(row.calls), f"{row.ms:.3f}", f"{100 * row.share:.1f}", f"{row.floor_ms:.3f}", reached)
    table.add_row(*cells, *figures)


def _rate(row: Row) -> str:
    if row.gmacs is not None:
        return f"{row.gmacs:.1f} GMAC/s"
    return f"{row.gbytes:.1f} GB/s" if row.gbytes is not None else "-"


if __name__ == "__main__":
    run_command(main)
