"""Times artifacts and keeps the reports."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lavit_edge.benchmark.devices import BenchmarkConfig, Progress, Several, keeping, measure
from lavit_edge.benchmark.report import Report, write_report
from lavit_edge.errors import UserError


@dataclass(frozen=True)
class Measured:
    """A report, and the file that it is in."""

    report: Report
    path: Path

    @property
    def passed(self) -> bool:
        """Whether the artifact passed its self-test; one that did not has no latency, unless it was timed by force."""
        return self.report["self_test"]["passed"]


def benchmark(
    artifacts: Path | str | Sequence[Path | str],
    out: Path | str = "reports",
    device: str = "host",
    config: BenchmarkConfig | None = None,
    *,
    progress: Progress = lambda what, share: None,
) -> list[Measured]:
    """Times artifacts on a device and writes a report of each: the command ``python -m lavit_edge.benchmark``.

    Several are timed in turns on ``host``, in processes that import the calling script: it must call this under
    ``if __name__ == "__main__"``.

    Args:
        out: a folder.
        device: ``host``, ``adb[:SERIAL|:all]``, ``adb-app[:SERIAL]``, ``ssh:USER@HOST[:PORT]``, ``browser``, ``ios:NAME`` or
            ``ios:REPORT.json``.
        progress: is told what is going on, and the share of the whole that is done.

    Raises:
        UserError: no such artifact or device, or what its runner says; of several devices, those that succeeded have reports.
    """
    config, out = config or BenchmarkConfig(), Path(out)
    paths = [Path(artifact) for artifact in ([artifacts] if isinstance(artifacts, Path | str) else artifacts)]
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is not a folder")
    reports: list[Report] = []
    try:
        with keeping(reports):
            if device == "host" and len(paths) > 1:
                from lavit_edge.benchmark.side_by_side import measure_in_turns

                reports += measure_in_turns(paths, config, progress)
            else:
                for path in paths:
                    reports += measure(device, path, config, progress)
    except Several as error:
        _keep(error.reports, out)
        raise UserError(f"{error}" + f"; the reports of the others are in {out}" * bool(error.reports)) from error
    return _keep(reports, out)


def _keep(reports: list[Report], out: Path) -> list[Measured]:
    measured = [Measured(report, out / file_name(report)) for report in reports]
    for each in measured:
        write_report(each.report, each.path)
    return measured


def file_name(report: Report) -> str:
    """Says what was measured where and when, and is unique: ``model.onnx_web_2threads_20261121T143504Z_1b9d6bcd.json``."""
    moment = re.sub(r"[-:]", "", report["created"])
    threads = f"{report['settings']['threads']}threads" if report["settings"]["threads"] else "threads"
    parts = [report["artifact"]["file"], report["harness"]["name"], threads, moment, report["id"][:8]]
    return re.sub(r"[^\w.-]", "-", "_".join(parts)) + ".json"
