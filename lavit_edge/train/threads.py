"""How many threads torch computes with on a CPU."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lavit_edge.models.classifier import Classifier

STEPS, PICTURES = 3, 8  # timed after one that is not, and the batch
GAIN = 0.9  # more threads must bring this share of the time at most


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Torch computes with so many threads in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_threads(model: Classifier, size: int, workers: int, processes: int) -> tuple[int, str]:
    """A number of threads and where it comes from.

    The user's ``OMP_NUM_THREADS``, if there is one. Else the cores that the loader's workers and the other processes leave, or
    half of them, or one, whichever trains fastest here and now: threads wait for each other, so that on a machine where others
    compute too, two can be slower than one. A step is timed with each, some seconds in all; a single core is not timed.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return torch.get_num_threads(), "OMP_NUM_THREADS"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = max(1, cores // processes - workers)
    if most == 1:
        return 1, f"{cores} cores, {workers} workers"
    best, fastest = 1, _seconds(model, size, 1)
    for threads in sorted({max(2, most // 2), most}):
        seconds = _seconds(model, size, threads)
        if seconds < GAIN * fastest:
            best, fastest = threads, seconds
    return best, f"the fastest of 1 to {most} here"


def _seconds(model: Classifier, size: int, threads: int) -> float:
    """Of a step, the median of ``STEPS``; the model's gradients are gone after it, and its statistics as they were."""
    kept = {name: value.clone() for name, value in model.named_buffers()}
    with computing_with(threads), torch.random.fork_rng(devices=[]):
        x, times = torch.zeros(PICTURES, 3, size, size), []
        model.train()
        for _ in range(1 + STEPS):
            start = time.perf_counter()
            model(x).sum().backward()
            times.append(time.perf_counter() - start)
    model.zero_grad()
    for name, value in model.named_buffers():
        value.copy_(kept[name])
    return statistics.median(times[1:])
