"""Loads benchmark reports, refuses to compare what is not comparable, and compares the rest."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from lavit_edge.benchmark.report import Report, edited, read_report
from lavit_edge.benchmark.statistics import Comparison, compare_runs, run_of
from lavit_edge.errors import UserError

MANY = 200  # files; fewer are read before other processes have started
CHUNK = 64  # files that a process takes at a time
PROCESSES = 4

# What two reports must have in common for a comparison of their times to mean anything: column, field of the report.
CONDITIONS = {
    "contract": "artifact.contract_sha256",
    "image_size": "artifact.image_size",
    "threads": "settings.threads",
    "power": "conditions.before.power",
    "low_power": "conditions.before.low_power",
    "thermal": "conditions.before.thermal",
    "build": "harness.build",
    "emulated": "device.emulated",
    "emulator": "device.emulator",
}
IDENTITY = {
    "content": "artifact.content_sha256",
    "device": "device.name",
    "cpu": "device.cpu",
    "os": "device.os",
    "os_version": "device.os_version",
    "harness": "harness.name",
    "runtime": "runtime.name",
    "runtime_version": "runtime.version",
    "backend": "runtime.backend",
}
SHOWN = {
    "file": "artifact.file",
    "model": "artifact.model",
    "precision": "artifact.precision",
    "bytes": "artifact.bytes",
    "top1_permille": "artifact.top1_permille",
    "p50_ns": "latency.p50_ns",
    "p90_ns": "latency.p90_ns",
    "p99_ns": "latency.p99_ns",
    "load_ns": "load.cold_ns",
    "first_ns": "load.first_inference_ns",
    "memory_bytes": "memory.peak_bytes",
    "created": "created",
}
COLUMNS = {**CONDITIONS, **IDENTITY, **SHOWN}
NUMBERS = ("image_size", "threads", "bytes", "top1_permille", "memory_bytes", "p50_ns", "p90_ns", "p99_ns", "load_ns", "first_ns")
DTYPES: dict[str, Any] = {
    **{name: pl.Int64 if name in NUMBERS else pl.Boolean if name in ("low_power", "emulated") else pl.String for name in COLUMNS},
    "source": pl.Int64,
    "path": pl.Binary,  # names of files need not be text
    "id": pl.String,
    "sha256": pl.String,
    "marks": pl.List(pl.String),
}
KEY = ["source", *IDENTITY, *CONDITIONS]


@dataclass(frozen=True)
class Group:
    """Repeated runs of the same artifact on the same device in the same way: one row of the table.

    Attributes:
        values: the columns of :data:`COLUMNS`; times and memory are medians over the runs.
        paths: of the reports.
        marks: what a reader must know before believing the row.
    """

    source: int
    values: dict[str, Any]
    paths: tuple[Path, ...]
    marks: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"{self.values['model'] or self.values['file']} {self.values['precision'] or ''}".strip()


@dataclass(frozen=True)
class Row:
    """A group beside the baseline; ``comparison`` is None for the baseline itself, and where there is no telling."""

    group: Group
    comparison: Comparison | None
    is_baseline: bool
    marks: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Attributes: rows, in the order of the arguments; reports that were read; files and copies left out, with why."""

    rows: list[Row]
    reports: int
    left_out: list[str] = field(default_factory=list)


Progress = Callable[[int, int], None]  # files that are read, of so many


def load(sources: Sequence[Path], progress: Progress = lambda done, of: None) -> tuple[list[Group], list[str]]:
    """The reports in files and folders, by what they are of: those of one folder that agree are repeated runs.

    Only a few values of each report are kept, so ten thousand take some 100 MB.

    Returns:
        The groups in the order of the sources, and lines that say what was left out.

    Raises:
        UserError: a named file is not a sound report; no report at all.
    """
    named = [(index, path) for index, path in enumerate(sources) if not path.is_dir()]
    found = [(index, file) for index, path in enumerate(sources) if path.is_dir() for file in sorted(path.rglob("*.json"))]
    rows = [_facts(index, path, read_report(path)) for index, path in named]
    skipped: list[str] = []
    for done, row in enumerate(_each(found), 1):
        progress(done, len(found))
        if isinstance(row, str):
            skipped.append(row)
        else:
            rows.append(row)
    if not rows:
        raise UserError(f"no benchmark report in {', '.join(map(str, sources))}" + (f"; {skipped[0]}" if skipped else ""))
    table = pl.DataFrame(rows, schema=DTYPES)
    once = table.unique(["source", "id", "sha256"], keep="first", maintain_order=True)
    left_out = []
    if skipped:
        left_out.append(f"{len(skipped)} of {len(found)} files are not sound reports; the first: {skipped[0]}")
    if len(once) < len(table):
        left_out.append(f"{len(table) - len(once)} copies of reports that are there already")
    return _groups(once), left_out


def compare(groups: Sequence[Group], baseline: Group | None, anyway: bool = False) -> list[Row]:
    """Rows, compared with ``baseline`` if there is one.

    Raises:
        UserError: two rows cannot be compared, and not ``anyway``; the message names the field and both values.
    """
    if baseline is not None and not anyway:
        for group in groups:
            if problem := next(iter(_incomparable(baseline, group)), None):
                raise UserError(f"these reports cannot be compared: {problem} (--anyway compares them and marks the rows)")
    runs = _runs(baseline) if baseline is not None else []
    rows = []
    for group in groups:
        if baseline is None or group is baseline:
            rows.append(Row(group, None, group is baseline, group.marks))
            continue
        marks = (*group.marks, *_incomparable(baseline, group), *_unknown(baseline, group))
        rows.append(Row(group, compare_runs(runs, _runs(group)), False, marks))
    return rows


def find_baseline(groups: Sequence[Group], sources: Sequence[Path], named: Path | None) -> Group | None:
    """The group to compare with: that of ``named``, or the first of exactly two.

    Raises:
        UserError: ``named`` is not among the sources, or has more than one group.
    """
    if named is None:
        return groups[0] if len(groups) == 2 else None
    index = next((i for i, source in enumerate(sources) if source.resolve() == named.resolve()), None)
    mine = [group for group in groups if group.source == index]
    if len(mine) != 1:
        kinds = "; ".join(f"{group.label}, {group.values['threads']} threads, {group.values['device']}" for group in mine[:3])
        raise UserError(f"--baseline {named} must hold reports of one artifact, device and setting, not of {len(mine)} ({kinds})")
    return mine[0]


def _runs(group: Group) -> list[Any]:
    return [run for path in group.paths if (run := run_of(read_report(path))) is not None]


def _incomparable(a: Group, b: Group) -> list[str]:
    """Fields in which two groups differ although they must not, with both values; unknown values are not held against them."""
    problems = []
    for side in (a, b):
        if side.values["emulated"]:
            emulator = side.values["emulator"] or "an emulator"
            problems.append(f"device.emulated is true in {side.paths[0].name} ({emulator}): its milliseconds are not latency")
    for name, path in CONDITIONS.items():
        left, right = a.values[name], b.values[name]
        if left is not None and right is not None and left != right:
            problems.append(f"{path} is {_short(left)} in {a.paths[0].name} and {_short(right)} in {b.paths[0].name}")
    return problems


def _unknown(a: Group, b: Group) -> list[str]:
    known = [name for name in ("contract", "power", "thermal", "build") if None in (a.values[name], b.values[name])]
    return [f"not known to agree: {', '.join(known)}"] if known else []


def _short(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"{text[:16]}..." if len(text) == 64 else text


def _facts(source: int, path: Path, report: Report) -> dict[str, Any]:
    """What of a report the table keeps."""
    row = {name: _at(report, where) for name, where in COLUMNS.items()}
    row["content"] = row["content"] or report["artifact"]["sha256"]
    return {
        **row,
        "source": source,
        "path": os.fsencode(path),
        "id": report["id"],
        "sha256": report["sha256"],
        "marks": marks(report),
    }


def marks(report: Report) -> list[str]:
    """What a reader must know of a report, in words."""
    found, test = [], report["self_test"]
    if edited(report):
        found.append("edited: its digest differs")
    if report["device"]["emulated"]:
        found.append("emulated: its milliseconds are not latency")
    if not test["passed"]:
        found.append("self-test failed" + (", timed by force" if test["forced"] else ""))
    elif test["forced"]:
        found.append("not self-tested: timed by force")
    if not report["least_duration_met"]:
        found.append("least duration not met")
    if report["lacks"]:
        found.append(f"lacks {', '.join(report['lacks'])}")
    return found


def _read(job: tuple[int, Path]) -> dict[str, Any] | str:
    try:
        return _facts(job[0], job[1], read_report(job[1]))
    except (UserError, OSError) as error:
        return str(error)


def _each(jobs: Sequence[tuple[int, Path]]) -> Iterable[dict[str, Any] | str]:
    """Each file's facts, or why it has none; 1 ms a report, so that thousands are shared among processes."""
    if len(jobs) < MANY:
        yield from map(_read, jobs)
        return
    context = multiprocessing.get_context("spawn")  # polars has threads, which a fork would not survive
    with ProcessPoolExecutor(min(os.cpu_count() or 1, PROCESSES), mp_context=context) as pool:
        yield from pool.map(_read, jobs, chunksize=CHUNK)


def _groups(table: pl.DataFrame) -> list[Group]:
    medians = [pl.col(name).median().round().cast(pl.Int64) for name in SHOWN if name.endswith(("_ns", "memory_bytes"))]
    firsts = [pl.col(name).first() for name in SHOWN if not name.endswith(("_ns", "memory_bytes"))]
    grouped = table.group_by(KEY, maintain_order=True).agg(*medians, *firsts, pl.col("path"), pl.col("marks"))
    groups = []
    for row in grouped.sort("source", maintain_order=True).iter_rows(named=True):
        paths, each = tuple(Path(os.fsdecode(path)) for path in row.pop("path")), row.pop("marks")
        counts = {mark: sum(mark in one for one in each) for one in each for mark in one}
        words = tuple(mark if count == len(each) else f"{mark} ({count} of {len(each)})" for mark, count in counts.items())
        groups.append(Group(row.pop("source"), row, paths, words))
    return groups


def _at(report: Report, path: str) -> Any:
    value: Any = report
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
