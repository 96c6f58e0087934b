"""Loads benchmark reports, refuses to compare what is not comparable, and compares the rest."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from lavit_edge.benchmark.conditions import Difference, Spread, changes, conditions, differences, measured, unknown
from lavit_edge.benchmark.report import Report, at, edited, read_report
from lavit_edge.benchmark.statistics import Comparison, compare_runs, run_of
from lavit_edge.errors import UserError

MANY = 200  # files; fewer are read before other processes have started
CHUNK = 64  # files that a process takes at a time
PROCESSES = 4

# Of a row, for the table, the page and machines: name, field of the report.
SHOWN = {
    "content": "artifact.content_sha256",
    "file": "artifact.file",
    "model": "artifact.model",
    "precision": "artifact.precision",
    "bytes": "artifact.bytes",
    "top1_permille": "artifact.top1_permille",
    "contract": "artifact.contract_sha256",
    "image_size": "artifact.image_size",
    "threads": "settings.threads",
    "device": "device.name",
    "cpu": "device.cpu",
    "os": "device.os",
    "os_version": "device.os_version",
    "emulated": "device.emulated",
    "emulator": "device.emulator",
    "harness": "harness.name",
    "runtime": "runtime.name",
    "runtime_version": "runtime.version",
    "backend": "runtime.backend",
    "p50_ns": "latency.p50_ns",
    "p90_ns": "latency.p90_ns",
    "p99_ns": "latency.p99_ns",
    "load_ns": "load.cold_ns",
    "first_ns": "load.first_inference_ns",
    "memory_bytes": "memory.peak_bytes",
    "created": "created",
}
TIMES = ("p50_ns", "p90_ns", "p99_ns", "load_ns", "first_ns", "memory_bytes")  # and memory: medians over repeated runs
NUMBERS = (*TIMES, "image_size", "threads", "bytes", "top1_permille")
MEASURED = tuple(each.path for each in measured())
EXACT = tuple(each.path for each in conditions() if each.path not in MEASURED)
DTYPES: dict[str, Any] = {
    **{name: pl.Int64 if name in NUMBERS else pl.Boolean if name == "emulated" else pl.String for name in SHOWN},
    **dict.fromkeys(EXACT, pl.String),  # as JSON
    **dict.fromkeys(MEASURED, pl.Int64),
    "session": pl.String,
    "source": pl.Int64,
    "path": pl.Binary,  # names of files need not be text
    "id": pl.String,
    "sha256": pl.String,
    "marks": pl.List(pl.String),
}
KEY = ["source", "content", *EXACT]


@dataclass(frozen=True)
class Group:
    """Repeated runs of the same artifact on the same device in the same way: one row of the table.

    Attributes:
        values: the columns of :data:`SHOWN`; times and memory are medians over the runs.
        conditions: what all of them were measured under, by the field's path; numbers are medians.
        sessions: of turns that they took.
        paths: of the reports.
        marks: what a reader must know before believing the row.
    """

    source: int
    values: dict[str, Any]
    conditions: dict[str, Any]
    sessions: frozenset[str]
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


def load(
    sources: Sequence[Path], progress: Progress = lambda done, of: None, anyway: bool = False
) -> tuple[list[Group], list[str]]:
    """The reports in files and folders, by what they are of: those of one folder that agree are repeated runs.

    They agree if a comparison would neither refuse nor mark them. ``anyway`` lets repeated runs differ in what rises and falls
    on a device, and marks the row. Only a few values of each report are kept, so ten thousand take some 100 MB.

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
    return _groups(once.with_columns(pl.Series("repeat", _repeats(once, anyway), pl.Int64)), anyway), left_out


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
        marks = (*group.marks, *_incomparable(baseline, group), *_marked(baseline, group))
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
        raise UserError(
            f"--baseline {named} must hold reports of one artifact, device and setting, not of {len(mine)}{_apart(mine)}"
        )
    return mine[0]


def nothing_compared(groups: Sequence[Group]) -> str:
    """Why several arguments are but listed: nobody named a baseline, and they are not just two things."""
    each = [[group for group in groups if group.source == source] for source in sorted({group.source for group in groups})]
    several = next((mine for mine in each if len(mine) > 1), groups)
    return (
        f"nothing was compared: these are {len(groups)} different things{_apart(several)}; --baseline names one of the arguments"
    )


def _apart(groups: Sequence[Group]) -> str:
    """What keeps the first two of several groups apart, in parentheses."""
    if len(groups) < 2:
        return ""
    a, b = groups[:2]
    found = [_told(each) for each in differences(a.conditions, b.conditions)] + [
        f"{path} known and not" for path in unknown(a.conditions, b.conditions)
    ]
    return f" ({'; '.join(found[:3]) or f'{a.label} and {b.label}'})"


def _runs(group: Group) -> list[Any]:
    return [run for path in group.paths if (run := run_of(read_report(path))) is not None]


def _incomparable(a: Group, b: Group) -> list[str]:
    """Fields in which two groups differ although they must not, with both values; unknown values are not held against them."""
    problems = []
    for side in (a, b):
        if side.values["emulated"]:
            emulator = side.values["emulator"] or "an emulator"
            problems.append(f"device.emulated is true in {side.paths[0].name} ({emulator}): its milliseconds are not latency")
    for each in differences(a.conditions, b.conditions):
        if each.condition.refused:
            left, right = _short(each.left), _short(each.right)
            problems.append(f"{each.condition.path} is {left} in {a.paths[0].name} and {right} in {b.paths[0].name}")
    return problems


def _marked(a: Group, b: Group) -> list[str]:
    """What the reader of a comparison must know: other conditions that differ, and what nobody knows."""
    found = differences(a.conditions, b.conditions, together=bool(a.sessions) and a.sessions == b.sessions)
    told, silent = [_told(each) for each in found if not each.condition.refused], unknown(a.conditions, b.conditions)
    marks = [f"not measured alike: {'; '.join(told)}"] if told else []
    return [*marks, f"not known to agree: {', '.join(silent)}"] if silent else marks


def _told(difference: Difference) -> str:
    return f"{difference.condition.path} {_short(difference.left)} against {_short(difference.right)}"


def _short(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else ", ".join(value) if isinstance(value, list) else str(value)
    return f"{text[:16]}..." if len(text) == 64 else text


def _facts(source: int, path: Path, report: Report) -> dict[str, Any]:
    """What of a report the table keeps."""
    row = {name: at(report, where) for name, where in SHOWN.items()}
    row["content"] = row["content"] or report["artifact"]["sha256"]
    values = {each.path: each.of(report) for each in conditions()}
    exact = {path: None if values[path] is None else json.dumps(values[path]) for path in EXACT}
    turns = at(report, "settings.turns.session")
    named = {"source": source, "path": os.fsencode(path), "id": report["id"], "sha256": report["sha256"], "session": turns}
    return {**row, **values, **exact, **named, "marks": marks(report)}


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
    if changed := changes(report):
        found.append(f"changed during the run: {', '.join(changed)}")
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


def _repeats(table: pl.DataFrame, anyway: bool) -> list[int]:
    """Which of the repeated runs, of those that are otherwise alike, each report is one of: the first that it agrees with.

    Sessions of turns are repeated runs although the load has risen from one to the next: each is compared within itself.
    """
    found: list[int] = []
    spreads: list[Spread] = []
    alike: dict[Any, list[int]] = {}
    known = [pl.col(path).is_not_null().alias(f"known: {path}") for path in MEASURED]
    keys, rest = table.select(*KEY, *known).rows(), table.select(pl.col(path).fill_null(0) for path in MEASURED).rows()
    for key, session, values in zip(keys, table["session"], rest, strict=True):
        numbers = alike.setdefault(key, [])
        fitting = (number for number in numbers if anyway or session or spreads[number].takes(values))
        if (number := next(fitting, None)) is None:
            number = len(spreads)
            spreads.append(Spread(values))
            numbers.append(number)
        found.append(number)
    return found


def _groups(table: pl.DataFrame, anyway: bool) -> list[Group]:
    medians = [pl.col(name).median().round().cast(pl.Int64) for name in (*TIMES, *MEASURED)]
    spreads = [(pl.col(path).max() - pl.col(path).min()).alias(f"spread of {path}") for path in MEASURED]
    firsts = [pl.col(name).first() for name in ("source", *EXACT, *SHOWN) if name not in TIMES]
    lists = [pl.col(name) for name in ("path", "marks", "session")]
    grouped = table.group_by("repeat", maintain_order=True).agg(*medians, *spreads, *firsts, *lists)
    groups = []
    for row in grouped.sort("source", maintain_order=True).iter_rows(named=True):
        paths = tuple(Path(os.fsdecode(path)) for path in row["path"])
        counts = {mark: sum(mark in one for one in row["marks"]) for one in row["marks"] for mark in one}
        words = [mark if count == len(paths) else f"{mark} ({count} of {len(paths)})" for mark, count in counts.items()]
        far = [each.path for each in measured() if each.differs(0, row[f"spread of {each.path}"] or 0)]
        if anyway and far:
            words.append(f"repeated runs that were not measured alike: {', '.join(far)}")
        values = {path: None if row[path] is None else json.loads(row[path]) for path in EXACT}
        values |= {path: row[path] for path in MEASURED}
        sessions = frozenset(session for session in row["session"] if session)
        groups.append(Group(row["source"], {name: row[name] for name in SHOWN}, values, sessions, paths, tuple(words)))
    return groups
