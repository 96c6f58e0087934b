"""``python -m lavit_edge.doctor``: what works on this machine, what is broken in a way that we go around, and what to mend.

Exit codes: 0 nothing that is needed here is broken; 1 something is; 2 a mistake in the options; 130 interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from concurrent.futures import ThreadPoolExecutor, as_completed

from lavit_edge.cli import Parser, new_console, new_table, run_command
from lavit_edge.doctor import pins
from lavit_edge.doctor.child import check
from lavit_edge.doctor.findings import Finding
from lavit_edge.doctor.host import host

COLOURS = {"OK": "green", "known": "yellow", "FAIL": "bold red", "not installed": "dim"}


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.doctor", description="Try the tools on this machine with a small model, and say what to mend.")
    p.add_argument("--json", action="store_true", help="print the findings as JSON on stdout, progress on stderr")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    findings = [*pins.versions(), *host(), *toolchains()]
    passed = all(finding.status != "FAIL" for finding in findings)
    if args.json:
        print(json.dumps({"passed": passed, "findings": [dataclasses.asdict(finding) for finding in findings]}, indent=1))
    else:
        report(findings)
    return 0 if passed else 1


def toolchains() -> list[Finding]:
    """The findings of every extra, in the order of their names; as many at a time as there are cores, three at most."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    extras = [extra for extra in pins.requirements() if extra not in (pins.BASE, pins.TORCH)]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Progress(*columns, console=new_console(stderr=True), transient=True) as progress,
        ThreadPoolExecutor(min(3, os.cpu_count() or 1)) as pool,  # each takes up to 1 GB
    ):
        bar = progress.add_task(f"trying {', '.join(extras)}", total=len(extras))
        running = {pool.submit(check, extra): extra for extra in extras}
        found = {}
        for done in as_completed(running):
            found[running[done]] = done.result()
            progress.advance(bar)
    return [finding for extra in extras for finding in found[extra]]


def report(findings: list[Finding]) -> None:
    """The table, and below it what to do."""
    from rich.text import Text

    table = new_table("", "check", "state", "seen")
    group = ""
    for finding in findings:
        if finding.group != group:
            table.add_section()
        shown = finding.group if finding.group != group else ""
        table.add_row(shown, finding.name, Text(finding.status, COLOURS[finding.status]), finding.detail)
        group = finding.group
    console = new_console()
    console.print(table)
    for finding in findings:
        if finding.mend:
            console.print(f"{finding.name} ({finding.status}): {finding.mend}", soft_wrap=True, highlight=False)
    failed = sum(finding.status == "FAIL" for finding in findings)
    words, style = (f"{failed} broken", "bold red") if failed else ("nothing that is needed here is broken", "green")
    console.print(words, style=style, highlight=False)


if __name__ == "__main__":
    run_command(main)
