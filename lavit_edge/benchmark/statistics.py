"""How far apart two benchmark runs are, and whether that is more than the same thing is from itself.

A run's samples are not independent: a neighbour on the machine, a clock or heat holds for many of them. So the bootstrap draws
blocks of about a second. And it sees only what happened within the run: the next run of the same artifact meets another machine.
So the noise floor, how far two runs of the same thing lie apart, comes on top (docs/benchmark.md has the calibration).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lavit_edge.benchmark.report import Report

BLOCK_NS = 1e9
STRETCHES = 8  # of a run, whose medians show how the machine drifts
REPLICATES = 1000
CONFIDENCE = 0.95
LEAST_SD = 0.012  # of a process's log median: what a new one changes though all else is equal (12 pairs of them: 0.015 apart)
APART = 2.0  # two runs lie further apart than the stretches of one: of 20 pairs, 17 were in their 95 % interval with 1, 19 with 2
EXPECTED_WEIGHT = 10  # degrees of freedom of the spread that is expected, beside that of repeated runs


@dataclass(frozen=True)
class Run:
    """One report's latency.

    Attributes:
        p50: median in nanoseconds.
        samples: every run in nanoseconds, in order; None where the report has quantiles only.
        stretches: medians of long stretches one after the other, nanoseconds; empty where nothing is known.
        session: of processes that took turns, the same for all of them; None of a run for itself.
        cpu: CPU time of every run, nanoseconds, of one thread; None where it is not known, or several threads share the work.
    """

    p50: float
    samples: NDArray[np.float64] | None
    stretches: NDArray[np.float64]
    session: str | None = None
    cpu: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Comparison:
    """The time of one side over that of the other.

    Attributes:
        ratio: over 1 is slower than the baseline.
        low, high: its 95 % interval, noise floor included.
        floor: how far two runs of the same thing lie apart here, as a share (0.02: 2 %), in 19 of 20 cases.
        by: what was compared: "CPU time in turns" or "time in turns", each run with the one beside it, else "medians".
        verdict: "faster", "slower" or "inconclusive".
    """

    ratio: float
    low: float
    high: float
    floor: float
    by: str
    verdict: str


def run_of(report: Report) -> Run | None:
    """What a report says of latency; None if it says nothing."""
    latency = report["latency"]
    if latency is None or latency["min_ns"] == 0:  # a clock that did not move
        return None
    turns = report["settings"].get("turns")
    if latency["samples_ns"] is None:
        return Run(latency["p50_ns"], None, np.asarray(latency["minutes_p50_ns"], np.float64))
    samples = np.asarray(latency["samples_ns"], np.float64)
    cpu = latency.get("cpu_ns") if report["settings"]["threads"] == 1 else None
    known = np.asarray(cpu, np.float64) if cpu and min(cpu) > 0 else None
    return Run(latency["p50_ns"], samples, stretches_of(samples), turns and turns["session"], known)


def stretches_of(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Medians of eight equally long stretches of a run; of fewer if there are fewer than ten samples in each."""
    count = min(STRETCHES, len(samples) // 10)
    if count < 2:
        return np.empty(0)
    ends = np.cumsum(samples)
    stretch = np.minimum((ends * count / ends[-1] * (1 - 1e-12)).astype(int), count - 1)
    return np.array([np.median(samples[stretch == i]) for i in np.unique(stretch)])


def block_bootstrap(series: NDArray[np.float64], block: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Medians of ``series`` drawn anew in blocks of ``block`` neighbours (circular), ``(REPLICATES,)``."""
    blocks = math.ceil(len(series) / block)
    starts = rng.integers(len(series), size=(REPLICATES, blocks, 1))
    medians = []
    for some in np.array_split(starts, math.ceil(REPLICATES * len(series) / 1_000_000)):  # not 160 MB for 20,000 samples
        drawn = (some + np.arange(block)).reshape(len(some), -1)[:, : len(series)] % len(series)
        medians.append(np.median(series[drawn], axis=1))
    return np.concatenate(medians)


def compare_runs(baseline: Sequence[Run], other: Sequence[Run]) -> Comparison | None:
    """Compares two sides, each of one or more runs of the same thing. The same runs always give the same answer.

    Sides that took turns are compared run by run, by CPU time where both know it; all others by the ratio of their
    medians (of several runs, medians of medians).
    None if there is no telling: a side without runs, or without a hint of how it drifted.
    """
    partners = {run.session: run for run in baseline if run.session}
    pairs = [(partners[run.session], run) for run in other if run.session in partners]
    if pairs and len(pairs) == len(baseline) == len(other):
        return _paired(pairs)
    return _unpaired(baseline, other) if baseline and other else None


def _paired(pairs: Sequence[tuple[Run, Run]]) -> Comparison:
    rng = np.random.default_rng(0)
    by_cpu = all(run.cpu is not None for pair in pairs for run in pair)
    series = []
    for a, b in pairs:
        left, right = (a.cpu, b.cpu) if by_cpu else (a.samples, b.samples)
        assert left is not None  # run_of gives a session only together with samples
        assert right is not None
        rounds = min(len(left), len(right))
        series.append(np.log(right[:rounds] / left[:rounds]))
    medians = np.array([np.median(one) for one in series])
    lengths = [_block(one, a.p50 + b.p50) for one, (a, b) in zip(series, pairs, strict=True)]
    replicates = np.mean([block_bootstrap(one, block, rng) for one, block in zip(series, lengths, strict=True)], axis=0)
    sd, freedom = _spread([medians], LEAST_SD * math.sqrt(2))
    by = "CPU time in turns" if by_cpu else "time in turns"
    return _comparison(float(medians.mean()), replicates, sd / math.sqrt(len(pairs)), freedom, by, rng)


def _unpaired(baseline: Sequence[Run], other: Sequence[Run]) -> Comparison | None:
    rng = np.random.default_rng(0)
    drift = [np.log(run.stretches) for run in (*baseline, *other) if len(run.stretches) > 1]
    if not drift:
        return None
    within = math.sqrt(sum(((one - one.mean()) ** 2).sum() for one in drift) / sum(len(one) - 1 for one in drift))
    sides = [np.array([math.log(run.p50) for run in side]) for side in (baseline, other)]
    sd, freedom = _spread(sides, max(LEAST_SD, APART * within))
    centre = float(np.median(sides[1]) - np.median(sides[0]))
    replicates = np.full(REPLICATES, centre)
    for sign, side in ((-1, baseline), (1, other)):
        for run in side:
            if run.samples is not None:
                logs = np.log(run.samples)
                drawn = block_bootstrap(logs, _block(logs, run.p50), rng)
                replicates += sign * (drawn - np.median(logs)) / len(side)
    return _comparison(centre, replicates, sd * math.sqrt(1 / len(baseline) + 1 / len(other)), freedom, "medians", rng)


def _spread(sides: Sequence[NDArray[np.float64]], expected: float) -> tuple[float, int]:
    """Standard deviation of runs of the same thing, and its degrees of freedom: what is expected, corrected by repeated runs."""
    freedom = sum(len(side) - 1 for side in sides)
    squares = sum(((side - side.mean()) ** 2).sum() for side in sides)
    return math.sqrt((EXPECTED_WEIGHT * expected**2 + squares) / (EXPECTED_WEIGHT + freedom)), EXPECTED_WEIGHT + freedom


def _block(series: NDArray[np.float64], sample_ns: float) -> int:
    """Samples of a second, but at least eight blocks a series."""
    return max(1, min(round(BLOCK_NS / sample_ns), len(series) // 8))


def _comparison(
    centre: float, replicates: NDArray[np.float64], sd: float, freedom: int, by: str, rng: np.random.Generator
) -> Comparison:
    """Adds the noise floor, of which ``sd`` is the standard deviation for this pair, to what the bootstrap found."""
    noise = rng.standard_t(freedom, REPLICATES)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.exp(np.quantile(replicates + sd * noise, [tail, 1 - tail]))
    verdict = "slower" if low > 1 else "faster" if high < 1 else "inconclusive"
    floor = math.exp(sd * float(np.quantile(np.abs(noise), CONFIDENCE))) - 1
    return Comparison(math.exp(centre), float(low), float(high), floor, by, verdict)
