"""Verdicts on series whose truth is known: drift, autocorrelation and spikes as on a shared machine."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import numpy as np
import pytest

from lavit_edge.benchmark.report import Report, latency
from lavit_edge.benchmark.statistics import Comparison, Run, _block, block_bootstrap, compare_runs, run_of, stretches_of

SESSION = "12345678-1234-1234-1234-123456789abc"


def neighbours(rng: np.random.Generator, count: int, strength: float = 0.1) -> np.ndarray:
    """Log of how much others slow the machine: an autocorrelated series (half gone in about 300 samples) and spikes of 1 %."""
    noise = rng.normal(size=count)
    series = np.empty(count)
    level = rng.normal()
    for index in range(count):
        level = 0.9977 * level + 0.0678 * noise[index]
        series[index] = level
    return strength * series + (rng.random(count) < 0.01) * rng.exponential(0.7, count)


def run(logs: np.ndarray, session: str | None = None) -> Run:
    samples = 8e6 * np.exp(logs)
    return Run(float(np.median(samples)), samples, stretches_of(samples), session)


def in_turns(rng: np.random.Generator, slower: float, rounds: int = 600) -> Comparison:
    both = neighbours(rng, rounds)
    sides = [both + 0.03 * rng.normal(size=rounds) + np.log(factor) for factor in (1, 1 + slower)]
    comparison = compare_runs([run(sides[0], SESSION)], [run(sides[1], SESSION)])
    assert comparison is not None
    assert comparison.by == "time in turns"
    return comparison


@pytest.mark.parametrize(("slower", "expected"), [(0.0, "inconclusive"), (0.05, "slower"), (-0.05, "faster")])
def test_turns_tell_five_percent_from_nothing(slower: float, expected: str) -> None:
    verdicts = [in_turns(np.random.default_rng(seed), slower).verdict for seed in range(20)]
    assert verdicts.count(expected) >= 19, verdicts


def test_turns_by_cpu_time_leave_the_queue_out(make_report: Callable[..., Report]) -> None:
    """A run waits in the queue as often as it runs; the work itself is 5 % more."""
    rng = np.random.default_rng(9)
    cpu = [8e6 * factor * np.exp(0.02 * rng.normal(size=400)) for factor in (1, 1.05)]
    queue = [one + rng.exponential(20e6, 400) for one in cpu]
    turns = {"session": SESSION, "sides": 2}

    def side(index: int, **changes: object) -> Run:
        samples, work = queue[index].astype(int).tolist(), cpu[index].astype(int).tolist()
        times = latency(samples, [0, *accumulate(samples[:-1])], work)
        found = run_of(make_report(latency=times, settings__turns=turns, **changes))
        assert found is not None
        return found

    one = compare_runs([side(0)], [side(1)])
    two = compare_runs([side(0, settings__threads=2)], [side(1, settings__threads=2)])
    assert one is not None
    assert two is not None
    assert (one.by, one.verdict) == ("CPU time in turns", "slower")
    assert one.ratio == pytest.approx(1.05, abs=0.01)
    assert (two.by, two.verdict) == ("time in turns", "inconclusive")


def test_two_runs_of_the_same_thing_are_inconclusive_although_they_drift() -> None:
    rng = np.random.default_rng(1)
    verdicts = []
    for _ in range(40):
        machine = neighbours(rng, 2000)
        comparison = compare_runs([run(machine[:1000])], [run(machine[1000:])])
        assert comparison is not None
        assert comparison.by == "medians"
        verdicts.append(comparison.verdict)
    assert verdicts.count("inconclusive") >= 38, verdicts


def test_the_bootstrap_alone_would_be_wrong_about_them() -> None:
    """What the noise floor is for: without it, drift between two runs passes for a difference."""
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(40):
        machine = neighbours(rng, 2000)
        a, b = (block_bootstrap(half, 125, rng) for half in (machine[:1000], machine[1000:]))
        low, high = np.quantile(b - a, [0.025, 0.975])
        wrong += not low <= 0 <= high
    assert wrong > 4


def test_a_steady_machine_shows_a_small_difference() -> None:
    rng = np.random.default_rng(2)
    quiet = [0.01 * rng.normal(size=1000) for _ in range(2)]
    comparison = compare_runs([run(quiet[0])], [run(quiet[1] + np.log(1.05))])
    assert comparison is not None
    assert comparison.verdict == "slower"
    assert comparison.low < 1.05 < comparison.high
    assert comparison.floor < 0.04


@pytest.mark.parametrize("session", [None, SESSION])
def test_the_interval_of_runs_that_never_vary_is_the_noise_floor(session: str | None) -> None:
    """Student's t of ten degrees of freedom: 2.228 is its 0.975 quantile, and 1.2 % what a new process changes, on each side."""
    still = run(np.zeros(400), session)
    comparison = compare_runs([still], [still])
    assert comparison is not None
    floor = 2.228 * 0.012 * np.sqrt(2)
    assert comparison.ratio == 1
    assert np.log1p(comparison.floor) == pytest.approx(floor, rel=0.1)  # of 1,000 draws
    assert np.log(comparison.high) == pytest.approx(floor, rel=0.1)
    assert np.log(comparison.low) == pytest.approx(-floor, rel=0.1)


def test_repeated_runs_widen_the_floor_by_their_spread() -> None:
    rng = np.random.default_rng(3)

    def side(levels: list[float]) -> list[Run]:
        return [run(level + 0.01 * rng.normal(size=500)) for level in levels]

    steady = compare_runs(side([0, 0, 0, 0]), side([0.05, 0.05, 0.05, 0.05]))
    restless = compare_runs(side([-0.1, 0.1, -0.05, 0.05]), side([-0.05, 0.15, 0, 0.1]))
    assert steady is not None
    assert restless is not None
    assert (steady.verdict, restless.verdict) == ("slower", "inconclusive")
    assert restless.floor > 3 * steady.floor


def test_blocks_keep_autocorrelation() -> None:
    """Drawn one by one, samples look as if a second had told as much as all of its runs."""
    series = neighbours(np.random.default_rng(4), 2000)
    rng = np.random.default_rng(0)
    assert block_bootstrap(series, 200, rng).std() > 3 * block_bootstrap(series, 1, rng).std()


def test_what_holds_for_a_second_widens_the_interval_of_turns() -> None:
    """The same differences in another order: as they came, neighbours agree, and less is known than their number says."""
    rng = np.random.default_rng(8)
    difference = neighbours(rng, 2000, 0.2)

    def width(series: np.ndarray) -> float:
        comparison = compare_runs([run(np.zeros(len(series)), SESSION)], [run(series, SESSION)])
        assert comparison is not None
        return comparison.high - comparison.low

    assert width(difference) > 1.5 * width(rng.permutation(difference))


def test_the_same_runs_give_the_same_answer() -> None:
    sides = [run(neighbours(np.random.default_rng(seed), 300)) for seed in (5, 6)]
    assert compare_runs(sides[:1], sides[1:]) == compare_runs(sides[:1], sides[1:])


def test_sides_of_different_sessions_are_not_paired() -> None:
    a, b = (run(neighbours(np.random.default_rng(7), 300), session) for session in (SESSION, SESSION.replace("1", "2")))
    comparison = compare_runs([a], [b])
    assert comparison is not None
    assert comparison.by == "medians"


def test_sides_of_which_some_runs_alone_took_turns_are_not_paired() -> None:
    paired, alone = (run(neighbours(np.random.default_rng(7), 300), session) for session in (SESSION, None))
    for sides in (([paired], [paired, alone]), ([paired, alone], [paired]), ([paired, alone], [paired, alone])):
        comparison = compare_runs(*sides)
        assert comparison is not None
        assert comparison.by == "medians"


def test_a_block_is_a_second_and_a_series_has_at_least_eight() -> None:
    series = np.zeros(160)
    assert [_block(series, sample_ns) for sample_ns in (2e9, 1e9, 100e6, 51e6, 1e6)] == [1, 1, 10, 20, 20]
    assert _block(np.zeros(7), 1e6) == 1


def test_minutes_stand_in_for_samples(make_report: Callable[..., Report]) -> None:
    def long(median: int) -> Run:
        samples = [median + index % 1000 for index in range(30_000)]
        found = run_of(make_report(latency=latency(samples, [0, *accumulate(samples[:-1])])))
        assert found is not None
        assert found.samples is None
        return found

    comparison = compare_runs([long(8_000_000)], [long(9_000_000)])
    assert comparison is not None
    assert comparison.verdict == "slower"
    assert compare_runs([long(1_000_000)], [long(2_000_000)]) is None  # not two minutes: nothing tells of drift


def test_stretches_are_equally_long_and_few_runs_have_none() -> None:
    samples = np.concatenate([np.full(400, 1e6), np.full(100, 4e6)])  # 0.4 s each
    assert stretches_of(samples).tolist() == [1e6] * 4 + [4e6] * 4
    assert len(stretches_of(np.full(15, 1e6))) == 0


def test_no_latency_and_a_clock_that_stood_still_are_no_runs(make_report: Callable[..., Report]) -> None:
    failed = make_report(latency=None, self_test__passed=False)
    assert run_of(failed) is None
    assert run_of(make_report([0, 0, 5])) is None
    good = run_of(make_report())
    assert good is not None
    assert compare_runs([good], []) is None
