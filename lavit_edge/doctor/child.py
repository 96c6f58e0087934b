"""``python -m lavit_edge.doctor.child GROUP``: the probes of one toolchain, one JSON line each on stdout as they end.

A process of its own, because a probe may crash, and because toolchains that meet in one process can break each other.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import json
import os
import subprocess
import sys

from lavit_edge.doctor import pins
from lavit_edge.doctor.findings import Finding, Probe, examine, one_line

LONGEST = 900  # seconds for one group; 10 to 30 are usual, five times that on a busy machine


def check(group: str) -> list[Finding]:
    """The findings of a group's probes, run in another process; a crash is a finding, too."""
    if absent := pins.missing(group):
        return [Finding(group, group, "not installed", ", ".join(absent), pins.install(group))]
    command = [sys.executable, "-W", "ignore", "-m", "lavit_edge.doctor.child", group]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=LONGEST, env=environment, stdin=subprocess.DEVNULL)
        output, end = done.stdout, f"died of signal {-done.returncode}" if done.returncode < 0 else _last_line(done.stderr)
        well = done.returncode == 0
    except subprocess.TimeoutExpired as late:
        output, end, well = late.stdout or b"", f"did not end within {LONGEST} s", False
    found = [Finding(**json.loads(line)) for line in output.splitlines()]
    if not well:
        found.append(Finding(group, f"after {found[-1].name!r}" if found else group, "FAIL", end, pins.repair(group)))
    return found


def _last_line(stderr: bytes) -> str:
    return (stderr.decode(errors="replace").strip().splitlines() or ["ended without a word"])[-1][:200]


def probes(group: str) -> tuple[Probe, ...]:
    return importlib.import_module(f"lavit_edge.doctor.{group.replace('-', '_')}").PROBES


def main(group: str) -> None:
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # native code writes to file descriptor 1
    gc.disable()  # a sixth of the time of lowering, for 120 MB more
    for finding in examine(group, probes(group)):
        print(json.dumps(dataclasses.asdict(finding)), file=results, flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except Exception as error:
        raise SystemExit(one_line(error)) from error
