"""Benchmarks several artifacts on this machine in turns, so that their times can be compared (``turns.py`` says why)."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import uuid
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lavit_edge.benchmark import facts
from lavit_edge.benchmark.devices import LEAST_RUNS, BenchmarkConfig, Progress
from lavit_edge.benchmark.host import WARMUP_RUNS, WARMUP_SECONDS, benchmark, check_runs_here
from lavit_edge.benchmark.report import Report, read_report, write_report
from lavit_edge.benchmark.turns import conduct, runs_in_turns, share_cores
from lavit_edge.errors import UserError
from lavit_edge.selftest import leave_out_what_reading_needs_not

READY = "ready"
SESSIONS = 3  # each with new processes: 5 % of difference were seen in 20 of 20 tries with three, in 29 of 60 with one


def measure_in_turns(artifacts: Sequence[Path], settings: BenchmarkConfig, progress: Progress) -> list[Report]:
    """Benchmarks several artifacts side by side: a process for each, one inference each in turns, on the same cores; three times.

    Whatever disturbs the machine disturbs all of them alike, so that small differences can be told.

    Raises:
        UserError: as :func:`measure`; one of them fails its self-test, and not ``settings.force``.
    """
    for artifact in artifacts:
        check_runs_here(artifact)
    progress("reading the artifacts", 0.0)
    delegations = [facts.delegation(artifact) for artifact in artifacts]
    reports = []
    sessions = [(threads, number) for threads in settings.threads for number in range(1, SESSIONS + 1)]
    for index, (threads, number) in enumerate(sessions):
        what = f"{len(artifacts)} in turns, {threads} thread{'s' * (threads > 1)}, {number} of {SESSIONS} times"
        progress(what, index / len(sessions))
        turns = {"session": str(uuid.uuid4()), "sides": len(artifacts)}
        with tempfile.TemporaryDirectory() as folder:
            outs = [Path(folder, f"{side}.json") for side in range(len(artifacts))]
            sides = [
                (artifact, threads, settings.seconds, settings.force, delegation, turns, out)
                for artifact, delegation, out in zip(artifacts, delegations, outs, strict=True)
            ]
            in_turns(side_in_turns, sides, settings.seconds)
            reports += [read_report(out) for out in outs]
    return reports


def in_turns(target: Callable[..., None], sides: Sequence[tuple[Any, ...]], seconds: float) -> None:
    """Runs ``target(*side, connection)`` in a process for each side; first warm-up, then measurement, in turns.

    A process sends a word when it is ready for its turns, or, if it will take none, its last.

    Raises:
        UserError: a process ended before its time; the message is its own where it has one.
    """
    context, running = multiprocessing.get_context("spawn"), []
    try:
        for side in sides:  # the next one loads when this one is ready: loading is timed, too
            here, there = context.Pipe()
            process = context.Process(target=target, args=(*side, there), daemon=True)
            process.start()
            there.close()
            running.append((process, here))
            try:
                word = here.recv_bytes().decode()
            except EOFError:
                process.join()
                raise UserError(f"{side[0]}: the process ended with {process.exitcode} without a word") from None
            if word != READY:
                raise UserError(word)
        connections = [here for _, here in running]
        conduct(connections, WARMUP_SECONDS, WARMUP_RUNS)
        conduct(connections, seconds, LEAST_RUNS)
        for process, _ in running:
            process.join()
    finally:
        for process, _ in running:
            process.kill()
            process.join()


def side_in_turns(
    artifact: Path,
    threads: int,
    seconds: float,
    force: bool,
    delegation: dict[str, Any],
    turns: dict[str, Any],
    out: Path,
    connection: Connection,
) -> None:
    """One process of :func:`in_turns`: writes the artifact's report to ``out``."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    share_cores(threads)
    leave_out_what_reading_needs_not(str(artifact))
    asked = False

    def timer(run: Callable[[], object], *_: float) -> tuple[list[int], ...]:
        nonlocal asked
        if not asked:
            connection.send_bytes(READY.encode())
        asked = True
        return runs_in_turns(run, connection)

    try:
        report = benchmark(artifact, threads, seconds, force, delegation, timer, turns)
        if not asked:
            raise UserError(f"{artifact} failed its self-test: {report['self_test']['detail']}")
        write_report(report, out)
    except UserError as error:
        connection.send_bytes(str(error).encode())
