"""``python -m lavit_edge.benchmark``: times an artifact on a device and writes a report that can be compared.

Exit codes: 0 measured; 1 the artifact failed its self-test (a report without latency is written all the same); 2 a mistake that
one line on stderr explains; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from lavit_edge.benchmark.devices import BenchmarkConfig
from lavit_edge.benchmark.report import Report
from lavit_edge.benchmark.run import benchmark
from lavit_edge.cli import NARROW, Parser, new_console, new_table, run_command

if TYPE_CHECKING:
    from rich.console import Console


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.benchmark", description="Time an artifact on a device and write a report (docs/benchmark.md).")
    what = "a .pte, .onnx, .ort, .tflite or .mlpackage that python -m lavit_edge.export wrote; several are timed in turns on host"
    p.add_argument("artifacts", type=Path, nargs="+", metavar="ARTIFACT", help=what)
    devices = "host, adb[:SERIAL|:all], adb-app[:SERIAL], ssh:USER@HOST[:PORT], browser, ios:NAME or ios:REPORT.json"
    p.add_argument("--device", default="host", help=devices)
    p.add_argument("--threads", type=_threads, default=(1,), metavar="N,...", help="of the runtime; a report for each")
    p.add_argument("--minutes", type=float, default=1 / 6, metavar="M", help="least duration of each measurement")
    p.add_argument("--out", type=Path, default=Path("reports"), help="folder for the reports")
    p.add_argument("--force", action="store_true", help="time an artifact that fails its self-test; the report says so")
    p.add_argument("--json", action="store_true", help="print the reports as JSON on stdout")
    return p


def _threads(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d{0,2}(,[1-9]\d{0,2})*", text):
        raise argparse.ArgumentTypeError(f"threads must be numbers from 1 to 999 with commas between, not {text!r}")
    return tuple(dict.fromkeys(int(number) for number in text.split(",")))


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    config = BenchmarkConfig(args.threads, 60 * args.minutes, args.force)
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=new_console(stderr=True), transient=True) as bar:
        task = bar.add_task(args.device, total=1.0)

        def progress(what: str, share: float) -> None:
            bar.update(task, description=f"{args.device}: {what}", completed=share)

        measured = benchmark(args.artifacts, args.out, args.device, config, progress=progress)
    reports = [each.report for each in measured]
    if args.json:
        print(json.dumps(reports, indent=1))
    else:
        print_reports(reports, [each.path for each in measured], new_console())
    return 0 if all(each.passed for each in measured) else 1


def print_reports(reports: list[Report], files: list[Path], console: Console) -> None:
    """A row for each report, and below it what makes it less than comparable."""
    heads = ("thr.", "load", "first", "p50", "p90", "p99", "runs", "pict.", "MB")
    title = "ms" + ", measured in turns" * ("turns" in reports[0]["settings"])
    table = new_table("artifact", figures=heads, title=title, **NARROW)
    for report in reports:
        times, load, before = report["latency"], report["load"], report["preprocessing"]
        figures = [_ms(times[name]) for name in ("p50_ns", "p90_ns", "p99_ns")] + [str(times["runs"])] if times else ["-"] * 4
        share = f"+{100 * before['p50_ns'] / times['p50_ns']:.0f} %" if times and before else "-"
        memory = report["memory"]["peak_bytes"]
        table.add_row(
            report["artifact"]["file"],
            str(report["settings"]["threads"] or "-"),
            _ms(load["cold_ns"]),
            _ms(load["first_inference_ns"]),
            *figures,
            share,
            f"{memory / 1e6:.0f}" if memory else "-",
        )
    console.print(table)
    console.print(
        "pict.: preparing a camera frame takes that share of p50 on top; MB: the most that the process held", style="dim"
    )
    for report, file in zip(reports, files, strict=True):
        for line in remarks(report):
            console.print(line, style="yellow")
        console.print(str(file), soft_wrap=True)


def remarks(report: Report) -> list[str]:
    """What a reader must know before quoting the figures."""
    tested, lines = report["self_test"], []
    if not tested["passed"]:
        lines.append(f"self-test failed: {tested['detail']}" + ("" if report["latency"] is None else "; timed by force"))
    if report["device"]["emulated"]:
        lines.append(f"emulated ({report['device']['emulator']}): these milliseconds are not latency")
    if report["latency"] and not report["least_duration_met"]:
        lines.append("shorter than asked for")
    if report["lacks"]:
        lines.append(f"unknown on this device: {', '.join(report['lacks'])}")
    return lines + report["notes"]


def _ms(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.2f}"


if __name__ == "__main__":
    run_command(main)
