"""Benchmarks an artifact on this machine: a ``.pte`` in ExecuTorch's runtime, an ``.onnx`` or ``.ort`` in ONNX Runtime,
a ``.tflite`` in LiteRT.

Each report comes from a process of its own, ``python -m lavit_edge.benchmark.host``, so that loading is cold and the peak of the
memory is that of this artifact and its runtime.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lavit_edge import __version__
from lavit_edge.artifact import tflite
from lavit_edge.artifact.payload import Payload, read_payload
from lavit_edge.artifact.runners import litert_interpreter, open_model, to_tensor
from lavit_edge.artifact.seal import check_seal
from lavit_edge.benchmark import facts
from lavit_edge.benchmark.devices import LEAST_RUNS, BenchmarkConfig, Progress, keeping
from lavit_edge.benchmark.report import Report, finish, latency, now, parse_report, quantile
from lavit_edge.cli import run_command
from lavit_edge.contract.pictures import to_input
from lavit_edge.errors import UserError, one_line
from lavit_edge.selftest import check_close, check_golden, leave_out_what_reading_needs_not, steps_off

RUNTIMES = {".pte": ("ExecuTorch", "executorch", "XNNPACK"), ".onnx": ("ONNX Runtime", "onnxruntime", "CPU")}
RUNTIMES[".ort"] = RUNTIMES[".onnx"]
RUNTIMES[".tflite"] = ("LiteRT", "ai-edge-litert", "XNNPACK")
WARMUP, WARMUP_SECONDS, WARMUP_RUNS = "3 runs and 1 s, whichever is later", 1.0, 3
FRAME = (480, 640)  # height, width of the camera frame that preprocessing is timed on
SECOND = 1_000_000_000  # ns
NOTHING_TESTED: dict[str, Any] = {"passed": False, "pictures": 0, "same_top1": 0, "worst_millisteps": None, "forced": True}
# starts and durations, as timed_runs gives them, and perhaps CPU times
Timer = Callable[[Callable[[], object], float, int], tuple[list[int], ...]]


def timed_runs(
    run: Callable[[], object], seconds: float, least: int, clock: Callable[[], int] = time.perf_counter_ns
) -> tuple[list[int], list[int]]:
    """Start and duration, in nanoseconds, of runs one after another, until ``seconds`` and ``least`` runs are both reached."""
    starts: list[int] = []
    samples: list[int] = []
    while len(samples) < least or starts[-1] + samples[-1] - starts[0] < seconds * SECOND:
        start = clock()
        run()
        samples.append(clock() - start)
        starts.append(start)
    return starts, samples


def measure(artifact: Path, settings: BenchmarkConfig, address: str | None, progress: Progress) -> list[Report]:
    """As :func:`lavit_edge.benchmark.devices.measure`; ``address`` has no meaning here.

    Raises:
        UserError: the artifact cannot be measured here; what the process says; it died.
    """
    if address:
        raise UserError(f"--device host takes no address ({address!r})")
    check_runs_here(artifact)
    progress("reading the artifact", 0.0)
    delegation = facts.delegation(artifact)
    reports: list[Report] = []
    with keeping(reports):
        for index, threads in enumerate(settings.threads):
            progress(f"{threads} thread{'s' * (threads > 1)}", index / len(settings.threads))
            reports.append(_in_a_process(artifact, threads, settings, delegation))
    return reports


def check_runs_here(artifact: Path) -> None:
    """Raises :class:`UserError` unless this machine has a runner for the artifact."""
    if artifact.suffix == ".mlpackage":
        raise UserError(f"{artifact}: Core ML runs on Apple devices only; --device ios measures an .mlpackage")
    if artifact.suffix == ".aimodel":
        raise UserError(f"{artifact}: Core AI's Linux runtime is a reference interpreter, and its time is no latency")
    if artifact.suffix not in RUNTIMES or not artifact.is_file():
        raise UserError(f"{artifact} is not an artifact that runs here: a .pte, .onnx, .ort or .tflite that exists")


def _in_a_process(artifact: Path, threads: int, settings: BenchmarkConfig, delegation: dict[str, Any]) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        command = [sys.executable, "-W", "ignore", "-m", "lavit_edge.benchmark.host", str(artifact), "--out", str(out)]
        command += ["--threads", str(threads), "--seconds", str(settings.seconds), "--delegation", json.dumps(delegation)]
        command += ["--force"] * settings.force
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
        if not out.exists():
            last = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode} without a word"])[-1]
            raise UserError(one_line(last).removeprefix("error: "))
        return parse_report(out.read_text("utf-8"), str(artifact))


def benchmark(
    artifact: Path,
    threads: int,
    seconds: float,
    force: bool,
    delegation: dict[str, Any],
    timer: Timer = timed_runs,
    turns: dict[str, Any] | None = None,
) -> Report:
    """Measures an artifact in this process, which must not have loaded it before.

    Args:
        force: time it although its self-test fails; a ``.tflite`` that is not ours, and has none, is given noise.
        timer: times runs; called for the warm-up, then for the measurement.
        turns: of a ``timer`` that takes turns with other processes, the report's ``settings.turns``.

    Raises as :func:`measure`.
    """
    runtime, package, backend = RUNTIMES[artifact.suffix]
    created, before = now(), facts.condition()
    failed: str | None = None
    try:
        check_seal(artifact)  # before any runtime parses it
    except UserError as error:
        failed = str(error)
        if not force:
            raise UserError(f"{error}; nothing was measured") from error
    foreign = failed is not None and artifact.suffix == ".tflite" and not tflite.entries(artifact)
    if foreign:
        litert_interpreter(artifact, threads)  # once where it may crash, which is not to be timed
    _import_runtime(artifact)
    cache = _drop_from_cache(artifact)
    start = time.perf_counter_ns()
    payload, size = None, 0
    if foreign:
        call, size = tflite.on_noise(litert_interpreter(artifact, threads, trusted=True), artifact)
        cold = time.perf_counter_ns() - start
        tested = {**NOTHING_TESTED, "detail": str(failed)[:500]}
    else:
        run, entries = open_model(artifact, threads, trusted=failed is None)
        cold = time.perf_counter_ns() - start
        payload = read_payload(entries())
        call = functools.partial(run, to_tensor(to_input(payload.golden[0].image(), payload.contract)))
    start = time.perf_counter_ns()
    call()
    first = time.perf_counter_ns() - start
    if payload is not None:
        tested = _self_test(payload, lambda square: run(to_tensor(square))[0], failed, force)
    warmup, times, met = {"runs": 0, "duration_ns": 0}, None, False
    if tested["passed"] or force:
        starts, samples, *_ = timer(call, WARMUP_SECONDS, WARMUP_RUNS)
        warmup = {"runs": len(samples), "duration_ns": starts[-1] + samples[-1] - starts[0]}
        starts, samples, *cpu = timer(call, seconds, LEAST_RUNS)
        times = latency(samples, starts, *cpu)
        met = times["duration_ns"] >= seconds * SECOND and times["runs"] >= LEAST_RUNS
    memory, after = facts.peak_memory(), facts.condition()  # here: what follows is not the artifact's
    return finish(
        {
            "created": created,
            "harness": {"name": "lavit_edge.bench", "version": __version__, "build": "release"},
            "device": facts.device(),
            "runtime": {"name": runtime, "version": importlib.metadata.version(package), "backend": backend, **delegation},
            "artifact": facts.artifact(artifact, payload) if payload else facts.foreign_artifact(artifact, size),
            "settings": {
                "threads": threads,
                "least_duration_ns": round(seconds * SECOND),
                "least_runs": LEAST_RUNS,
                "warmup": {"policy": WARMUP, **warmup},
                **({"turns": turns} if turns else {}),
            },
            "conditions": {"before": before, "after": after},
            "self_test": tested,
            "load": {"cold_ns": cold, "first_inference_ns": first, "file_cache": cache},
            "latency": times,
            "preprocessing": _preprocessing(payload) if payload else None,
            "memory": memory,
            "least_duration_met": met,
            "notes": [],
        }
    )


def _self_test(payload: Payload, run: Any, failed: str | None, force: bool) -> dict[str, Any]:
    same, worst, answers = 0, 0.0, []
    for golden in payload.golden:
        checks, logits = check_golden(golden, run, payload)
        failed = failed or next((f"{check.name}: {check.found}" for check in checks if not check.passed), None)
        same += int(logits.argmax()) == int(golden.logits.argmax())
        steps = steps_off(golden, logits, payload)
        worst = max(worst, math.inf if steps is None else float(steps.max()))
        answers.append(logits)
    close = check_close(answers, payload)
    failed = failed or (None if close.passed else f"{close.name}: {close.found}")
    return {
        "passed": failed is None,
        "pictures": len(payload.golden),
        "same_top1": same,
        "worst_millisteps": round(1000 * worst) if math.isfinite(worst) else None,
        "forced": force and failed is not None,
        "detail": failed[:500] if failed else None,
    }


def _preprocessing(payload: Payload, runs: int = 20) -> dict[str, Any]:
    from PIL import Image

    frame = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*FRAME, 3), dtype=np.uint8))
    _, samples = timed_runs(lambda: to_tensor(to_input(frame, payload.contract)), 0.0, runs)
    return {"frame": f"{FRAME[1]}x{FRAME[0]} RGB", "runs": len(samples), "p50_ns": quantile(sorted(samples), 500)}


def _import_runtime(artifact: Path) -> None:
    """So that loading the artifact is timed without it; what is missing, :func:`open_model` says."""
    try:
        if artifact.suffix == ".pte":
            import executorch.runtime  # noqa: F401
        elif artifact.suffix == ".tflite":
            import ai_edge_litert.interpreter  # noqa: F401
        else:
            import onnxruntime  # noqa: F401
    except ImportError:
        pass


def _drop_from_cache(artifact: Path) -> str:
    """Asks the system to forget the file's pages, so that it reads them again; a disk's own cache is out of reach."""
    if not hasattr(os, "posix_fadvise"):
        return "warm"
    with artifact.open("rb") as file:
        os.fsync(file.fileno())  # pages that are not written yet would be kept
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return "cold"


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("artifact", type=Path)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--threads", type=int, required=True)
    p.add_argument("--seconds", type=float, required=True)
    p.add_argument("--delegation", type=json.loads, required=True)
    p.add_argument("--force", action="store_true")
    args = p.parse_args()
    report = benchmark(args.artifact, args.threads, args.seconds, args.force, args.delegation)
    args.out.write_text(json.dumps(report), encoding="utf-8")
    return 0


if __name__ == "__main__":
    leave_out_what_reading_needs_not(*sys.argv[1:])
    run_command(main)
