"""The benchmark report: a JSON document that Python, C++, Kotlin, Swift and JavaScript write alike (docs/benchmark.md).

``report.schema.json`` says what is in it. All its numbers are integers, so that canonical JSON (RFC 8785) takes no rule for
floating point and the digest over it is the same in every language. No torch import.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from lavit_edge.errors import UserError, one_line
from lavit_edge.files import parse_json, read_json

FORMAT = "lavit_edge.report/1"
MOST_SAMPLES = 20_000  # beyond it a report has quantiles instead: two hours of a 5 ms model would be 30 MB
UNITS = {1000: "microseconds", 1_000_000: "milliseconds", 1_000_000_000: "seconds"}

Report = dict[str, Any]


@cache
def schema() -> dict[str, Any]:
    return json.loads((importlib.resources.files("lavit_edge.benchmark") / "report.schema.json").read_text("utf-8"))


def canonical(value: Any) -> bytes:
    """RFC 8785 for what a report holds: sorted names, no white space, integers, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(report: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of all but the report's own ``sha256``."""
    return hashlib.sha256(canonical({name: value for name, value in report.items() if name != "sha256"})).hexdigest()


def lacks(report: Mapping[str, Any]) -> list[str]:
    """Those fields that a comparison should know and that are null here, sorted."""
    return [path for path in schema()["properties"]["lacks"]["items"]["enum"] if at(report, path) is None]


def quantile(ordered: Sequence[int], permille: int) -> int:
    """By nearest rank: value ``ceil(q n)`` of the ``n`` in order, from 1; no interpolation, which languages do differently."""
    return ordered[max(math.ceil(permille * len(ordered) / 1000), 1) - 1]


def latency(samples_ns: Sequence[int], starts_ns: Sequence[int], cpu_ns: Sequence[int] | None = None) -> dict[str, Any]:
    """The field ``latency`` of runs that took ``samples_ns`` (``cpu_ns`` of CPU time) and began at ``starts_ns``, in order."""
    ordered = sorted(samples_ns)
    minutes: dict[int, list[int]] = {}
    for start, sample in zip(starts_ns, samples_ns, strict=True):
        minutes.setdefault((start - starts_ns[0]) // 60_000_000_000, []).append(sample)
    duration = starts_ns[-1] + samples_ns[-1] - starts_ns[0]
    whole = duration // 60_000_000_000
    few = len(ordered) <= MOST_SAMPLES
    return {
        "runs": len(ordered),
        "duration_ns": duration,
        "min_ns": ordered[0],
        "p50_ns": quantile(ordered, 500),
        "p90_ns": quantile(ordered, 900),
        "p99_ns": quantile(ordered, 990),
        "max_ns": ordered[-1],
        "samples_ns": list(samples_ns) if few else None,
        **({"cpu_ns": list(cpu_ns)} if few and cpu_ns is not None else {}),
        "quantiles_ns": None if few else [quantile(ordered, permille) for permille in range(1001)],
        "minutes_p50_ns": [quantile(sorted(minutes[minute]), 500) for minute in sorted(minutes) if minute < whole],
    }


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def finish(report: Mapping[str, Any]) -> Report:
    """A report with what every report has: format, id, ``lacks``, digest. Raises :class:`ValueError` if it is not sound."""
    whole: Report = {"format": FORMAT, "id": str(uuid.uuid4()), "created": now(), **report}
    whole["lacks"] = lacks(whole)
    whole["sha256"] = digest(whole)
    if problem := first_problem(whole):
        raise ValueError(problem)
    return whole


def write_report(report: Report, path: Path) -> None:
    """Writes a report, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_report(path: Path) -> Report:
    """A report that is sound by schema and in itself; whether it was edited is for :func:`edited` to say.

    Raises:
        UserError: not a report, a truncated one, one of a newer format, of mixed units, or at odds with itself.
    """
    return check_report(read_json(path), str(path))


def parse_report(text: str, source: str) -> Report:
    """As :func:`read_report`, from a text that ``source`` names."""
    return check_report(parse_json(text, source), source)


def check_report(value: Any, source: str) -> Report:
    """As :func:`read_report`, from the parsed value."""
    form = value.get("format") if isinstance(value, dict) else None
    if not isinstance(form, str) or not form.startswith("lavit_edge.report/"):
        raise UserError(f"{source} is not a benchmark report (no format {FORMAT!r})")
    if form != FORMAT:
        raise UserError(f"{source} has the format {form!r}; this lavit-edge reads {FORMAT!r}: update it")
    if problem := first_problem(value):
        raise UserError(f"{source}: {problem}")
    return value


def edited(report: Report) -> bool:
    """Whether a report is not what its harness wrote: its digest differs."""
    return digest(report) != report["sha256"]


def first_problem(report: Report) -> str | None:
    """What is wrong with a report: by the schema, then within itself."""
    for error in _validator().iter_errors(report):
        where = ".".join(str(part) for part in error.instance_path) or "the report"
        return f"{where}: {one_line(error.message)[:200]}"
    if report["lacks"] != lacks(report):
        return f"lacks: must name the null fields {', '.join(lacks(report)) or '(none)'}"
    if report["latency"] is None:
        return None if not report["self_test"]["passed"] else "latency: missing though the self-test passed"
    if not report["self_test"]["passed"] and not report["self_test"]["forced"]:
        return "latency: given though the self-test failed and nobody forced it"
    return _latency_problem(report["latency"])


def _latency_problem(latency: dict[str, Any]) -> str | None:
    samples, quantiles = latency["samples_ns"], latency["quantiles_ns"]
    if (samples is None) == (quantiles is None):
        return "latency: exactly one of samples_ns and quantiles_ns must be given"
    if samples is not None and len(samples) != latency["runs"]:
        return f"latency: {len(samples)} samples of {latency['runs']} runs"
    if "cpu_ns" in latency and (samples is None or len(latency["cpu_ns"]) != len(samples)):
        return f"latency.cpu_ns: {len(latency['cpu_ns'])} values for {len(samples or ())} samples"
    ordered = sorted(samples) if samples is not None else quantiles
    if quantiles is not None and any(low > high for low, high in pairwise(quantiles)):
        return "latency.quantiles_ns: not in order"
    for name, permille in (("min_ns", 0), ("p50_ns", 500), ("p90_ns", 900), ("p99_ns", 990), ("max_ns", 1000)):
        expected, given = (quantile(ordered, permille) if samples is not None else quantiles[permille]), latency[name]
        if expected == given:
            continue
        for factor, unit in UNITS.items():
            if given and 0.9 < expected / given / factor < 1.1:
                return f"latency.{name}: mixed units, {given} looks like {unit}; every time of a report is in nanoseconds"
            if expected and 0.9 < given / expected / factor < 1.1:
                return f"latency: mixed units, the runs look like {unit}; every time of a report is in nanoseconds"
        return f"latency.{name}: {given}, but the runs give {expected}"
    if sum(samples or ()) > latency["duration_ns"]:
        return f"latency.duration_ns: {latency['duration_ns']}, less than the runs together"
    return None


@cache
def _validator() -> Any:
    try:
        import jsonschema_rs
    except ImportError as error:
        raise UserError(f"reports are checked with jsonschema-rs ({error}); pip install 'lavit-edge[bench]'") from error
    return jsonschema_rs.validator_for(schema())


def at(report: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    value: Any = report
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
