"""``python -m lavit_edge.compare``: which of several benchmark reports is faster, as far as that can be told.

Exit codes: 0 compared; 2 a mistake that one line on stderr explains, or reports that cannot be compared; 130 interrupted.

The module can be called: it is :func:`compare`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavit_edge.cli import Parser, new_console, run_command
from lavit_edge.errors import UserError, one_line
from lavit_edge.verbs import verb

if TYPE_CHECKING:
    from lavit_edge.benchmark.comparison import Table

verb(__name__)


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.compare", description="Compare benchmark reports: faster, slower, or no telling.")
    p.add_argument(
        "reports", type=Path, nargs="+", help="reports, or folders of them (reports of one folder that agree are repeated runs)"
    )
    p.add_argument("--baseline", type=Path, help="compare all others with this one of the arguments (default: of two, the first)")
    p.add_argument("--anyway", action="store_true", help="compare what cannot be compared, and mark it")
    p.add_argument("--html", type=Path, help="write a page with plots to this file")
    form = p.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    form.add_argument("--json", action="store_true", help="print the result as JSON")
    return p


def compare(
    reports: Sequence[Path | str],
    baseline: Path | str | None = None,
    *,
    anyway: bool = False,
    progress: Callable[[str, float], None] = lambda what, share: None,
) -> Table:
    """Compares benchmark reports: the command ``python -m lavit_edge.compare``.

    Args:
        reports: files, or folders of them; reports of one folder that agree are repeated runs.
        baseline: compare all others with this one; None: of two, the first.
        anyway: compare what cannot be compared, and mark it.
        progress: is told what is going on, and the share of it that is done.

    Raises:
        UserError: no such file or no sound report, or reports that cannot be compared.
    """
    sources = list(dict.fromkeys(map(Path, [*reports, *([baseline] if baseline else [])])))
    for source in sources:
        if not source.exists():
            raise UserError(f"{source} does not exist")
    try:
        import polars  # noqa: F401
    except ImportError as error:
        raise UserError(f"reports are compared with polars ({error}); pip install 'lavit-edge[bench]'") from error
    from lavit_edge.benchmark import comparison

    groups, left_out = comparison.load(sources, lambda done, of: progress("reading reports", done / of), anyway)
    progress("comparing", 1.0)
    found = comparison.find_baseline(groups, sources, Path(baseline) if baseline else None)
    if found is None and len(sources) > 1:
        left_out.append(comparison.nothing_compared(groups))
    return comparison.Table(comparison.compare(groups, found, anyway), sum(len(group.paths) for group in groups), left_out)


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from rich.progress import Progress

    with Progress(console=new_console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading reports", total=1.0)

        def progress(what: str, share: float) -> None:
            bar.update(task, description=what, completed=share)

        table = compare(args.reports, args.baseline, anyway=args.anyway, progress=progress)
    if args.html:
        from lavit_edge.benchmark.page import page

        _write(args.html, page(table))
    if args.json:
        print(json.dumps(to_dict(table), indent=1))
    elif args.markdown:
        from lavit_edge.benchmark.table import markdown

        print(markdown(table))
    else:
        from lavit_edge.benchmark.table import print_table

        print_table(table, new_console())
    return 0


def to_dict(table: Table) -> dict[str, Any]:
    """The result for machines; times in nanoseconds as in the reports, ratios as numbers."""
    rows = []
    for row in table.rows:
        rows.append(
            {
                **row.group.values,
                "conditions": row.group.conditions,
                "reports": [str(path) for path in row.group.paths],
                "baseline": row.is_baseline,
                "comparison": asdict(row.comparison) if row.comparison else None,
                "marks": list(row.marks),
            }
        )
    return {"reports": table.reports, "left_out": table.left_out, "rows": rows}


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({one_line(str(error))})") from error
    finally:
        temporary.unlink(missing_ok=True)
    print(f"page: {path}", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
