"""What int8 buys on this machine: latency and size of int8 artifacts against float ones, from one run, 224 pixels, batch 1.

    python benchmarks/int8_vs_fp32.py --models lavit_tiny lavit_mobile_s

Weights are random, which changes neither latency nor size; the int8 form is calibrated on the free pictures. int8 and fp32 are
timed in turns, a block of calls each, so that another process on the machine slows both. Where a ratio misses its target, the
operators that take the time are listed: by ONNX Runtime's profiler, and for ExecuTorch those that its delegate did not take
(``python -m lavit_edge.profile`` has more). Needs lavit-edge[all], and matplotlib for --out.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from lavit_edge.artifact.runners import open_runtime, to_tensor
from lavit_edge.benchmark.profile_onnx import kernel_totals
from lavit_edge.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from lavit_edge.cli import run_command
from lavit_edge.contract import InputContract
from lavit_edge.data.folder import free_pictures
from lavit_edge.errors import UserError
from lavit_edge.export import executorch
from lavit_edge.export.golden import make_payload
from lavit_edge.export.targets import ExecutorchOptions, find_target
from lavit_edge.models import create_model
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.calibrate import calibrate, int8_form
from lavit_edge.quantize.program import float_program, int8_program
from lavit_edge.quantize.scheme import default_float_layers
from lavit_edge.toolchain import quiet

SIZE = 224
CALLS = 5  # timed calls of a block, after one that is not
PRECISIONS = ("float", "int8")
RUNTIMES = {".pte": "ExecuTorch", ".onnx": "ONNX Runtime"}
# int8 / fp32, at most
LATENCY = {"lavit_tiny": {".pte": 0.52, ".onnx": 0.68}, "lavit_mobile_s": {".pte": 0.50, ".onnx": 0.65}}  # at 1 thread
FILE_SIZE = {
    "lavit_tiny": {".pte": 0.30, ".onnx": 0.30, ".mlpackage": 0.60},  # the float .mlpackage is fp16
    "lavit_mobile_s": {".pte": 0.33, ".onnx": 0.33, ".mlpackage": 0.60},
}
Key = TypeVar("Key")
Artifacts = dict[tuple[str, str], Path]  # (suffix, precision) -> file


def quantised_checkpoint(name: str, classes: int, folder: Path) -> Checkpoint:
    """A checkpoint of random weights with its int8 form."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=classes, image_size=SIZE).eval()
    contract = InputContract(SIZE, tuple(f"class {index}" for index in range(classes)))
    pictures = [torch.from_numpy(to_tensor(picture)) for picture, _ in free_pictures(contract).spread(8).inputs(contract)]
    deployed = Deployed(model, contract).eval()
    with quiet(), contextlib.redirect_stdout(io.StringIO()):  # NNCF draws its bars on stdout
        int8 = int8_form(calibrate(deployed, pictures, default_float_layers(deployed.model)))
    save_checkpoint(folder, model.state_dict(), model={"name": name}, contract=contract, card="", int8=int8)
    return load_checkpoint(folder)


def export(checkpoint: Checkpoint, folder: Path) -> tuple[Artifacts, dict[str, int]]:
    """All artifacts at both precisions; and the calls that ExecuTorch's delegate left out of the int8 program."""
    artifacts: Artifacts = {}
    for precision, program in zip(PRECISIONS, (float_program(checkpoint), int8_program(checkpoint)), strict=True):
        for suffix in (".pte", ".onnx", ".mlpackage"):
            artifacts[suffix, precision] = folder / f"{precision}{suffix}"
        lowered = executorch.lower(program, ExecutorchOptions())
        undelegated = executorch.undelegated(lowered)
        artifacts[".pte", precision].write_bytes(lowered.to_executorch().buffer)
        payload = make_payload(program, checkpoint.contract, {}, 8.0)
        find_target("onnx").export(program, payload, artifacts[".onnx", precision])
        find_target("coreml").export(program, payload, artifacts[".mlpackage", precision])
    return artifacts, undelegated


def time_all(
    artifacts: Artifacts, threads: int, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[tuple[str, str], list[float]]:
    """Milliseconds of every timed call."""
    picture = np.random.default_rng(0).integers(0, 256, (1, 3, SIZE, SIZE)).astype(np.float32)
    runs = {key: open_runtime(path, threads) for key, path in artifacts.items() if key[0] in RUNTIMES}
    return time_in_turns({key: functools.partial(run, picture) for key, run in runs.items()}, range(rounds), clock)


def time_in_turns(
    runs: Mapping[Key, Callable[[], object]], rounds: Iterable[int], clock: Callable[[], float] = time.perf_counter
) -> dict[Key, list[float]]:
    """Milliseconds of every timed call, a block of calls of each in every round."""
    times: dict[Key, list[float]] = {key: [] for key in runs}
    for _ in rounds:
        for key, run in runs.items():
            run()
            for _ in range(CALLS):
                start = clock()
                run()
                times[key].append(1e3 * (clock() - start))
    return times


def measure(name: str, classes: int, threads: list[int], rounds: int, console: Console) -> dict[str, Any]:
    """All figures of one model."""
    with tempfile.TemporaryDirectory() as folder, console.status(f"{name}: calibrating") as status:
        checkpoint = quantised_checkpoint(name, classes, Path(folder) / "checkpoint")
        status.update(f"{name}: exporting")
        artifacts, undelegated = export(checkpoint, Path(folder))
        sizes = {
            suffix: {precision: file_bytes(artifacts[suffix, precision]) for precision in PRECISIONS}
            for suffix in FILE_SIZE["lavit_mobile_s"]
        }
        latency = {}
        for count in threads:
            status.update(f"{name}: timing, {count} thread(s)")
            times = time_all(artifacts, count, rounds)
            latency[count] = {
                suffix: {
                    precision: {
                        "median_ms": float(np.median(times[suffix, precision])),
                        "min_ms": min(times[suffix, precision]),
                    }
                    for precision in PRECISIONS
                }
                for suffix in RUNTIMES
            }
        status.update(f"{name}: profiling")
        by_op = {precision: kernel_totals(artifacts[".onnx", precision]) for precision in PRECISIONS}
    return {
        "classes": classes,
        "bytes": sizes,
        "latency": latency,
        "onnxruntime_ops": by_op,
        "executorch_undelegated": undelegated,
    }


def report(name: str, figures: dict[str, Any], console: Console) -> None:
    """Prints a model's table and, below it, the reasons for what missed its target."""
    table = Table(title=f"{name}, {SIZE} px, {figures['classes']} classes, batch 1")
    for column in ("", "float", "int8", "int8/float", "target"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    missed, fastest = set(), []

    def row(title: str, suffix: str, values: list[float], unit: str, target: float | None) -> None:
        ratio = values[1] / values[0]
        verdict = "" if target is None else f"{target:.2f} {'reached' if ratio <= target else 'MISSED'}"
        if target is not None and ratio > target:
            missed.add((suffix, unit))
        table.add_row(title, *(f"{value:.2f} {unit}" for value in values), f"{ratio:.3f}", verdict)

    for threads, runtimes in figures["latency"].items():
        for suffix, title in RUNTIMES.items():
            values = [runtimes[suffix][precision]["median_ms"] for precision in PRECISIONS]
            target = LATENCY.get(name, {}).get(suffix) if threads == 1 else None
            label = f"{title}, {threads} thread{'s' * (threads > 1)}"
            row(label, suffix, values, "ms", target)
            fastest.append(f"{label} {runtimes[suffix]['int8']['min_ms'] / runtimes[suffix]['float']['min_ms']:.3f}")
    for suffix, sizes in figures["bytes"].items():
        row(suffix, suffix, [sizes[precision] / 1e6 for precision in PRECISIONS], "MB", FILE_SIZE.get(name, {}).get(suffix))
    console.print(table)
    console.print(f"int8/float of the fastest calls, which other processes disturb least: {'; '.join(fastest)}")
    if (".onnx", "ms") in missed:
        for precision, ops in figures["onnxruntime_ops"].items():
            listed = ", ".join(f"{op} {ms:.2f} ({calls})" for op, (ms, calls) in ops.items() if ms >= 0.05)
            console.print(
                f"ONNX Runtime, {precision}, 1 thread, ms (calls): {listed}; all {sum(ms for ms, _ in ops.values()):.2f}"
            )
    if (".pte", "ms") in missed:
        listed = ", ".join(f"{op} ({calls})" for op, calls in figures["executorch_undelegated"].items())
        console.print(f"ExecuTorch, int8, outside the delegate (calls): {listed}")


def plot(results: dict[str, Any], path: Path) -> None:
    """Bars of the median latencies, float beside int8."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(results), 4), layout="tight")
    axes = figure.subplots(1, len(results), squeeze=False)
    for axis, (name, figures) in zip(axes[0], results.items(), strict=True):
        rows = [(RUNTIMES[s], threads, times[s]) for threads, times in figures["latency"].items() for s in RUNTIMES]
        for shift, precision in enumerate(PRECISIONS):
            heights = [times[precision]["median_ms"] for _, _, times in rows]
            bars = axis.bar(np.arange(len(rows)) + 0.4 * shift, heights, 0.4, label=precision)
            axis.bar_label(bars, fmt="%.1f", fontsize=8)
        labels = [f"{runtime}\n{threads} thread{'s' * (threads > 1)}" for runtime, threads, _ in rows]
        axis.set_xticks(np.arange(len(rows)) + 0.2, labels, fontsize=7)
        axis.set_title(f"{name}, {SIZE} px")
        axis.set_ylabel("ms, median")
        axis.legend()
    figure.savefig(path, dpi=120)


def file_bytes(path: Path) -> int:
    """Of a file, or of all in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(LATENCY), help="default: %(default)s")
    parser.add_argument(
        "--classes", type=int, default=10, help="of the float head, 1 MB of lavit_mobile_s at 1000; default: %(default)s"
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=30, help=f"blocks of {CALLS} calls per artifact; default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on stdout, tables on stderr")
    parser.add_argument("--out", type=Path, help="folder for int8_vs_fp32.png")
    arguments = parser.parse_args()
    if arguments.out and not importlib.util.find_spec("matplotlib"):
        raise UserError("--out draws with matplotlib, which is not installed; pip install matplotlib")
    console = Console(stderr=arguments.json)
    results = {}
    for name in arguments.models:
        results[name] = measure(name, arguments.classes, arguments.threads, arguments.rounds, console)
        report(name, results[name], console)
    console.print(f"load average while measuring: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if arguments.json:
        print(json.dumps(results, indent=1))
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        plot(results, arguments.out / "int8_vs_fp32.png")
    return 0


if __name__ == "__main__":
    run_command(main)
