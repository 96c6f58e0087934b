"""What the profilers of both runtimes give, and how calls are timed for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lavit_edge.verdict.plan import Op


@dataclass(frozen=True)
class TimedOp:
    """One operator of an artifact.

    Attributes:
        name: as the runtime calls it.
        label: which one it is.
        block: path in its model; ``model`` outside of all blocks, '' where it is not known.
        op: its multiply-adds and bytes.
        ms: a call, the mean of the faster half.
    """

    name: str
    label: str
    block: str
    op: Op
    ms: float


@dataclass(frozen=True)
class Times:
    """
    Attributes:
        whole_ms: calls without the profiler.
        profiled_ms: the faster half of those with it, which the operators' times are of.
        notes: what the reader must know, one sentence each.
    """

    whole_ms: list[float]
    profiled_ms: list[float]
    ops: list[TimedOp]
    notes: list[str]


def timed(runs: Sequence[Callable[[], object]], calls: int) -> list[list[float]]:
    """Milliseconds of ``calls`` calls of each, in turns, so that another process slows all of them."""
    found: list[list[float]] = [[] for _ in runs]
    for _ in range(calls):
        for run, taken in zip(runs, found, strict=True):
            start = time.perf_counter_ns()
            run()
            taken.append((time.perf_counter_ns() - start) / 1e6)
    return found


def faster_half(milliseconds: Sequence[float]) -> list[int]:
    """Indices of the faster half, in order; the first call, which warms up, is never among them."""
    order = sorted(range(1, len(milliseconds)), key=milliseconds.__getitem__)
    return sorted(order[: max(len(order) // 2, 1)])
