"""Why an artifact takes the time it takes: the times of its operators beside their multiply-adds and this machine's floor."""

from __future__ import annotations

import collections
import dataclasses
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavit_edge.benchmark.floor import Floor, measure_floor
from lavit_edge.benchmark.timing import TimedOp, faster_half
from lavit_edge.errors import UserError
from lavit_edge.verdict.judge import judge, place
from lavit_edge.verdict.read import read

CALLS = 40  # with the profiler, and as many without
SLOWEST = 10  # single operators that are listed


@dataclass(frozen=True)
class Row:
    """Operators together.

    Attributes:
        name: their type or their block, or which single operator it is.
        place: where they run; of a block '', of a single operator its block.
        ms: a call.
        share: of the time of all operators, 0 to 1.
        macs: multiply-adds.
        floor_ms: what they would take at the machine's limits.
        gmacs, gbytes: 1e9 multiply-adds, bytes a second; None for blocks, and where there are none of them.
    """

    name: str
    place: str
    calls: int
    ms: float
    share: float
    macs: int
    floor_ms: float
    gmacs: float | None
    gbytes: float | None


@dataclass(frozen=True)
class Profile:
    """
    Attributes:
        median_ms: a call without the profiler, as a user would see it.
        whole_ms: the same without the turns of other processes: on one thread processor time; the mean of the faster half.
        profiled_ms: ``whole_ms`` with the profiler.
        parts_ms: all operators together, of each the mean of the faster half of its calls.
        sentence: the verdict's, on what to change.
    """

    artifact: str
    runtime: str
    precision: str
    threads: int
    calls: int
    whole_ms: float
    median_ms: float
    profiled_ms: float
    parts_ms: float
    macs: int
    floor: Floor
    types: list[Row]
    blocks: list[Row]
    slowest: list[Row]
    sentence: str
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def profile(path: Path, threads: int = 1, progress: Callable[[str], None] = lambda what: None) -> Profile:
    """Times the operators of a ``.pte``, ``.onnx`` or ``.ort``, and measures the machine's floor.

    Raises:
        UserError: no such artifact, its runtime is not installed, it is damaged, or it does not run here.
    """
    if path.suffix == ".aimodel":
        raise UserError(f"{path}: Core AI's Linux runtime is a reference interpreter, and its time is no latency")
    if path.suffix == ".mlpackage":
        raise UserError(f"{path}: Core ML runs on Apple devices only; open it in Xcode, whose performance report times operators")
    if path.suffix == ".tflite":
        raise UserError(f"{path}: LiteRT's Python package has no profiler; its benchmark_model tool times operators")
    progress("reading the artifact")
    plan, device = read(path)
    if plan.runtime == "Core ML":
        raise UserError(f"{path} is for the Core ML delegate, which runs on Apple devices only; profile the one for XNNPACK")
    progress("timing its operators")
    if path.suffix == ".pte":
        from lavit_edge.benchmark.profile_pte import time_operators
    else:
        from lavit_edge.benchmark.profile_onnx import time_operators
    times = time_operators(path, plan, threads, CALLS)
    progress("measuring the machine's limits")
    floor = measure_floor(plan.runtime, threads)
    ops = times.ops
    parts = sum(op.ms for op in ops)
    verdict = judge(plan, device)
    notes = list(times.notes)
    if lost := sum(op.macs for op in plan.ops) - sum(op.op.macs for op in ops):
        notes.append(f"{lost / 1e6:.1f} M multiply-adds were not found among the operators that ran.")

    def rows(groups: Iterable[tuple[str, str, list[TimedOp]]], rates: bool = True) -> list[Row]:
        return [_row(name, where, members, parts, floor, rates) for name, where, members in groups]

    by_type = _grouped(ops, lambda op: (op.name, "the runtime itself" if op.name.startswith("(") else place(op.op, plan)))
    by_block = _grouped(ops, lambda op: (op.block, ""))
    single = sorted(ops, key=lambda op: -op.ms)[:SLOWEST]
    return Profile(
        artifact=path.name,
        runtime=plan.runtime,
        precision=verdict.precision,
        threads=threads,
        calls=CALLS,
        whole_ms=faster_half(times.whole.busy),
        median_ms=statistics.median(times.whole.wall),
        profiled_ms=faster_half(times.profiled.busy),
        parts_ms=parts,
        macs=verdict.macs,
        floor=floor,
        types=sorted(rows(by_type), key=lambda row: -row.ms),
        blocks=rows(by_block, rates=False) if any(op.block for op in ops) else [],
        slowest=rows((f"{op.name} ({op.label})", op.block, [op]) for op in single),
        sentence=verdict.sentence,
        notes=notes,
    )


def _grouped(ops: list[TimedOp], key: Callable[[TimedOp], tuple[str, str]]) -> list[tuple[str, str, list[TimedOp]]]:
    """In the order of their first operators."""
    members: dict[tuple[str, str], list[TimedOp]] = collections.defaultdict(list)
    for op in ops:
        members[key(op)].append(op)
    return [(*names, group) for names, group in members.items()]


def _row(name: str, where: str, members: list[TimedOp], parts: float, floor: Floor, rates: bool) -> Row:
    ms, macs, size = (sum(values) for values in zip(*((m.ms, m.op.macs, m.op.bytes) for m in members), strict=True))
    return Row(
        name,
        where,
        len(members),
        ms,
        ms / parts if parts else 0.0,
        macs,
        sum(floor.ms(member.op) for member in members),
        macs / ms / 1e6 if rates and macs and ms else None,
        size / ms / 1e6 if rates and size and not macs and ms else None,
    )
