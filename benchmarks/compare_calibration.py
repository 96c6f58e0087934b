"""How often ``lavit_edge.compare`` says what is true, on this machine as it is now.

    python benchmarks/compare_calibration.py ARTIFACT OUT

Each try measures three processes: A, the same artifact again (A'), and the artifact with a busy wait of 5 % of its median after
each inference, inside the timed region. In turns, in three sessions with new processes each, and once each for itself, one after
the other. Right is "inconclusive" for A' against A, and "slower" for the delayed one. The reports stay in OUT; what is there
already is not measured again.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import multiprocessing
import os
import time
import uuid
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lavit_edge import __version__
from lavit_edge.artifact.payload import read_payload
from lavit_edge.artifact.runners import open_runtime, read_entries
from lavit_edge.benchmark import facts
from lavit_edge.benchmark.host import WARMUP, timed_runs
from lavit_edge.benchmark.report import finish, latency, now, read_report, write_report
from lavit_edge.benchmark.turns import conduct, runs_in_turns, share_cores
from lavit_edge.cli import run_command
from lavit_edge.metrics import wilson

SIDES = {"a": 0.0, "same": 0.0, "slow": 0.05}  # name and delay, as a share of its own median
SESSIONS = {"turns": 3, "alone": 1}  # of a try, each with new processes
RIGHT = {"same": "inconclusive", "slow": "slower"}
LEAST = 50


def delayed(run: Callable[[], object], share: float) -> Callable[[], object]:
    """``run``, then a busy wait of ``share`` of the median of its last 51 durations.

    Both in CPU time: on a core with other work, a delay of 5 % of the time on the clock was a slowdown of 16 %.
    """
    last: deque[int] = deque(maxlen=51)

    def both() -> None:
        start = time.process_time_ns()
        run()
        last.append(time.process_time_ns() - start)
        end = start + last[-1] + share * sorted(last)[len(last) // 2]
        while time.process_time_ns() < end:
            pass

    return both if share else run


def side(artifact: Path, share: float, seconds: float, session: str | None, connection: Connection, out: Path) -> None:
    """One process: measures the artifact and writes its report; in turns if there is a session."""
    if session:
        share_cores(1)
    created, before = now(), facts.condition()
    start = time.perf_counter_ns()
    execute = open_runtime(artifact, 1)
    cold = time.perf_counter_ns() - start
    payload = read_payload(read_entries(artifact))
    size = payload.contract.size
    picture = np.random.default_rng(0).uniform(0, 255, (1, 3, size, size)).astype(np.float32)
    run = delayed(lambda: execute(picture), share)
    start = time.perf_counter_ns()
    run()
    first = time.perf_counter_ns() - start
    connection.send_bytes(b"ready")
    if session:
        starts, samples, _ = runs_in_turns(run, connection)
        measured_starts, measured, cpu = runs_in_turns(run, connection)
        times = latency(measured, measured_starts, cpu)
    else:
        starts, samples = timed_runs(run, 1.0, 3)
        times = latency(*reversed(timed_runs(run, seconds, LEAST)))
    settings: dict[str, Any] = {"threads": 1, "least_duration_ns": round(seconds * 1e9), "least_runs": LEAST}
    settings["warmup"] = {"policy": WARMUP, "runs": len(samples), "duration_ns": starts[-1] + samples[-1] - starts[0]}
    if session:
        settings["turns"] = {"session": session, "sides": len(SIDES)}
    runtime: dict[str, Any] = {"name": "ONNX Runtime", "version": importlib.metadata.version("onnxruntime"), "backend": "CPU"}
    report = {
        "created": created,
        "harness": {"name": "lavit_edge.bench", "version": __version__, "build": "release"},
        "device": facts.device(),
        "runtime": {**runtime, "delegated_macs_permille": None, "graph_breaks": None},
        "artifact": facts.artifact(artifact, payload),
        "settings": settings,
        "conditions": {"before": before, "after": facts.condition()},
        "self_test": {"passed": False, "pictures": 0, "same_top1": 0, "worst_millisteps": None, "forced": True, "detail": None},
        "load": {"cold_ns": cold, "first_inference_ns": first, "file_cache": "warm"},
        "latency": times,
        "preprocessing": None,
        "memory": facts.peak_memory(),
        "least_duration_met": True,
        "notes": [f"calibration of compare: artificial delay of {100 * share:g} %; self-test left out"],
    }
    write_report(finish(report), out)


def measure(artifact: Path, folder: Path, number: int, seconds: float, turns: bool) -> None:
    """One session: report ``number`` of each side, measured in turns or one after the other."""
    context = multiprocessing.get_context("spawn")
    session = str(uuid.uuid4()) if turns else None
    running = []
    for name, share in SIDES.items():
        here, there = context.Pipe()
        arguments = (artifact, share, seconds, session, there, folder / name / f"{number}.json")
        process = context.Process(target=side, args=arguments)
        process.start()
        there.close()
        here.recv_bytes()
        running.append((process, here))
        if not turns:
            process.join()
    if turns:
        conduct([here for _, here in running], 1.0, 3)
        conduct([here for _, here in running], seconds, LEAST)
    for process, _ in running:
        process.join()


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("artifact", type=Path, help="an .onnx or .ort")
    p.add_argument("out", type=Path)
    p.add_argument("--tries", type=int, default=20)
    p.add_argument("--seconds", type=float, default=5.0, help="of each side")
    args = p.parse_args()
    from lavit_edge.benchmark.comparison import compare, load  # not needed by the measured processes, which import this file too

    os.environ["OMP_NUM_THREADS"] = "1"
    for index in track(range(args.tries), "measuring", console=Console(stderr=True)):
        for how, sessions in SESSIONS.items():
            folder = args.out / how / f"{index:03}"
            for number in range(sessions):
                if not all((folder / name / f"{number}.json").exists() for name in SIDES):
                    measure(args.artifact, folder, number, args.seconds, how == "turns")
    table = Table(
        "measured", "pair", "right", "tries right", "95 % interval", "median ratio", "worst ratio", "median noise floor"
    )
    loads = []
    for how in SESSIONS:
        for other, right in RIGHT.items():
            found = []
            for index in range(args.tries):
                folder = args.out / how / f"{index:03}"
                groups, _ = load([folder / "a", folder / other])
                found.append(compare(groups, groups[0])[1].comparison)
                loads.append(read_report(folder / "a" / "0.json")["conditions"]["before"]["load_permille"])
            good = [one for one in found if one is not None]
            count = sum(one.verdict == right for one in good)
            low, high = wilson(count, args.tries)
            ratios = sorted((one.ratio for one in good), key=lambda ratio: abs(math.log(ratio / (1 + SIDES[other]))))
            row = (how, f"{other} against a", right, f"{count} of {args.tries}", f"{low:.2f} to {high:.2f}")
            floor = f"{100 * float(np.median([one.floor for one in good])):.1f} %"
            table.add_row(*row, f"{float(np.median(ratios)):.3f}", f"{ratios[-1]:.3f}", floor)
    Console(width=130).print(table)
    known = [value for value in loads if value is not None]
    if known:
        print(f"load average per core while measuring: {min(known) / 1000:.1f} to {max(known) / 1000:.1f}")
    return 0


if __name__ == "__main__":
    run_command(main)
