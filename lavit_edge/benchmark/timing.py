"""What the profilers of both runtimes give, and how calls are timed for them."""

from __future__ import annotations

import statistics
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
        ms: the mean of the faster half of its calls, which other processes seldom interrupted.
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
        whole: calls without the profiler.
        profiled: calls with it.
        notes: what the reader must know, one sentence each.
    """

    whole: Calls
    profiled: Calls
    ops: list[TimedOp]
    notes: list[str]


@dataclass(frozen=True)
class Calls:
    """Milliseconds of calls.

    Attributes:
        wall: as a user would see them.
        busy: on one thread processor time, which has no turns of other processes in it, as ``ms`` of an operator has hardly any;
            on more threads the same as ``wall``.
    """

    wall: list[float]
    busy: list[float]


def timed(runs: Sequence[Callable[[], object]], threads: int, calls: int) -> list[Calls]:
    """``calls`` calls of each after one to warm up, in turns, so that another process slows all of them."""
    found = [Calls([], []) for _ in runs]
    for run in runs:
        run()
    for _ in range(calls):
        for run, taken in zip(runs, found, strict=True):
            start, busy = time.perf_counter_ns(), time.process_time_ns()
            run()
            wall, busy = time.perf_counter_ns() - start, time.process_time_ns() - busy
            taken.wall.append(wall / 1e6)
            taken.busy.append((busy if threads == 1 else wall) / 1e6)
    return found


def faster_half(samples: Sequence[float]) -> float:
    """The mean of the faster half."""
    return statistics.fmean(sorted(samples)[: (len(samples) + 1) // 2])
