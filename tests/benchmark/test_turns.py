"""Turns: nobody runs beside another, all have as many runs, on the same cores, and one who goes away is named."""

from __future__ import annotations

import os
import threading
import time
from itertools import pairwise
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import pytest

from lavit_edge.benchmark.turns import conduct, runs_in_turns, share_cores
from lavit_edge.errors import UserError

Found = dict[int, tuple[list[int], list[int], list[int]]]


def partner(side: int, connection: Connection, found: Found, leaves_at: int | None) -> None:
    """In a thread, whose cores are its own on Linux; leaving closes the connection, as the end of a process does."""
    runs = 0

    def run() -> None:
        nonlocal runs
        runs += 1
        if runs == leaves_at:
            connection.close()
        time.sleep(0.002)

    share_cores(1)
    try:
        starts, samples, cpu = runs_in_turns(run, connection)
    except (EOFError, OSError):
        return
    assert len(cpu) == len(samples)
    found[side] = (starts, samples, sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [])


def together(least: int, leaves_at: int | None = None) -> Found:
    pipes = [Pipe() for _ in range(3)]
    found: Found = {}
    threads = [
        threading.Thread(target=partner, args=(side, there, found, leaves_at if side == 1 else None))
        for side, (_, there) in enumerate(pipes)
    ]
    for thread in threads:
        thread.start()
    try:
        conduct([here for here, _ in pipes], 0.0, least)
    finally:
        for here, _ in pipes:
            here.close()  # the end for those who still wait
        for thread in threads:
            thread.join(10)
    return found


def test_turns_do_not_overlap_and_are_equally_many() -> None:
    found = together(20)
    spans = [[(start, start + sample) for start, sample in zip(*found[side][:2], strict=True)] for side in range(3)]
    assert [len(one) for one in spans] == [20, 20, 20]
    rounds = [sorted(turn) for turn in zip(*spans, strict=True)]
    in_order = [span for turn in rounds for span in turn]
    assert all(before[1] <= after[0] for before, after in pairwise(in_order))
    assert {turn.index(first[0]) for turn, first in zip(zip(*spans, strict=True), rounds, strict=True)} == {0, 1, 2}
    assert all(end - start >= 2_000_000 for start, end in in_order)
    assert found[0][2] == found[1][2] == found[2][2]
    assert len(found[0][2]) <= 1


def test_one_who_goes_away_is_named() -> None:
    with pytest.raises(UserError, match="process 2 of those that take turns ended before its time"):
        together(20, leaves_at=5)
