"""Runs in turns with other processes on the same machine: how to measure what is to be compared.

Two runs of the same artifact one after the other were 22 % apart (root mean square; 12 s each, two virtual cores with other work
on them): what neighbours do changes within seconds. Processes that take turns, one inference each, on the same core, meet the
same neighbours: the medians of their ratios were 1.5 % apart, by CPU time 1.2 %, in the mean of three sessions 0.7 %. Their
reports say so in ``settings.turns``, and :mod:`lavit_edge.benchmark.statistics` pairs their runs (docs/benchmark.md has the
calibration).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait

from lavit_edge.errors import UserError

GO, DONE, END = b"go", b"done", b"end"
LONGEST_TURN = 600.0  # seconds


def share_cores(threads: int) -> None:
    """Keeps this process on the same ``threads`` cores as its partners (on Linux); to be called before a runtime starts any."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def runs_in_turns(
    run: Callable[[], object], connection: Connection, clock: Callable[[], int] = time.perf_counter_ns
) -> tuple[list[int], list[int], list[int]]:
    """One run for each turn that :func:`conduct` gives, until it ends the measurement.

    Returns:
        Start, duration and CPU time of this process of each run, in nanoseconds, in order.
    """
    starts: list[int] = []
    samples: list[int] = []
    cpu: list[int] = []
    while connection.recv_bytes() == GO:
        cpu_start = time.process_time_ns()
        start = clock()
        run()
        samples.append(clock() - start)
        cpu.append(time.process_time_ns() - cpu_start)
        starts.append(start)
        connection.send_bytes(DONE)
    return starts, samples, cpu


def conduct(connections: Sequence[Connection], seconds: float, least: int) -> None:
    """Gives turns, in each round one to each side, until each side has had ``seconds`` and ``least`` runs.

    Every round in another order, drawn at random: who follows whom matters. In a fixed order, the one behind a side that also
    waits busily was 2 % slower than the others; in alternating directions, those at the ends ran twice in succession and were 2 %
    faster.

    Raises:
        UserError: a process ended, or did not come back from its turn.
    """
    spent, rounds, order = [0.0] * len(connections), 0, list(range(len(connections)))
    drawn = random.Random(0)
    while rounds < least or min(spent) < seconds:
        drawn.shuffle(order)
        for side in order:
            connection, begun = connections[side], time.perf_counter()
            try:
                connection.send_bytes(GO)
                if not wait([connection], LONGEST_TURN):
                    raise UserError(f"process {side + 1} of those that take turns has not come back for {LONGEST_TURN:.0f} s")
                connection.recv_bytes()
            except (EOFError, OSError) as error:
                raise UserError(f"process {side + 1} of those that take turns ended before its time") from error
            spent[side] += time.perf_counter() - begun
        rounds += 1
    for connection in connections:
        connection.send_bytes(END)
