"""How long ``lavit_edge.compare`` takes to load and summarise many reports, and how much memory.

    python benchmarks/compare_many.py REPORT FOLDER

Makes reports out of one that has samples: other devices, numbers of threads, and runs drawn anew. They stay in FOLDER.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from lavit_edge.benchmark.report import finish, latency, read_report, write_report
from lavit_edge.cli import run_command

DEVICES, THREADS = 50, 4


def make(template: Path, folder: Path, count: int) -> None:
    """Writes ``count`` reports; of each device and number of threads equally many."""
    report = read_report(template)
    samples = np.asarray(report["latency"]["samples_ns"])
    rng = np.random.default_rng(0)
    for index in range(count):
        drawn = [int(value) for value in rng.choice(samples, len(samples))]
        starts = [int(value) for value in np.cumsum([0, *drawn[:-1]])]
        changed = {name: value for name, value in report.items() if name not in ("id", "lacks", "sha256")}
        changed["device"] = {**report["device"], "name": f"device {index % DEVICES}"}
        changed["settings"] = {**report["settings"], "threads": 1 + index // DEVICES % THREADS}
        write_report(finish({**changed, "latency": latency(drawn, starts)}), folder / f"{index:06}.json")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("report", type=Path)
    p.add_argument("folder", type=Path)
    p.add_argument("--count", type=int, default=10_000)
    args = p.parse_args()
    start = time.perf_counter()
    make(args.report, args.folder, args.count)
    print(f"made {args.count} reports in {time.perf_counter() - start:.1f} s")
    for _ in range(3):
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "lavit_edge.compare", args.folder, "--json"], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        print(f"loaded and summarised in {seconds:.1f} s, {cpu:.1f} s of CPU, {load}")
    size = sum(file.stat().st_size for file in args.folder.glob("*.json")) / args.count / 1000
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    print(f"{size:.0f} kB a report; at most {peak:.0f} MB of memory in a process")
    return 0


if __name__ == "__main__":
    run_command(main)
