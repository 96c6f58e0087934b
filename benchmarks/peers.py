"""LaViT against what would be picked instead, in one run on one machine: fp32 and int8, ExecuTorch, ONNX Runtime and LiteRT.

    pip install ai-edge-litert==2.3.0 'lavit-edge[all,bench,teacher]'
    pip install --no-deps --target SITE timm==1.0.31 torchvision==0.28.0  # apart: this torchvision is for another torch
    PYTHONPATH=SITE python benchmarks/peers.py --tflite FOLDER --out plots

Latency, size and multiply-adds only. Weights are random except where the table says trained, which changes none of them. Every
model but the .tflite ones takes RGB in 0..255, normalises inside, gives 1000 classes, and goes through the same exporters. LaViT
is quantised by this package; the peers by what a user of each runtime would take, ExecuTorch's XNNPACKQuantizer and ONNX
Runtime's static quantisation, since this package puts quantisers around layers and knows neither batch norm nor activations other
than ReLU behind them. All models are timed in turns, a block of calls each, so that another process on the machine slows all of
them; on one thread it is processor time, which is the latency without the turns of other processes. The share of the limit is the
time that the multiply-adds would take at the rate of square matrix products in the same runtime and precision, divided by the
time taken. A .tflite is set against ExecuTorch's lavit_mobile_s and limit. Artifacts are made once, in --work. What cannot be
exported is a row that says why.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from int8_vs_fp32 import time_in_turns
from peer_models import LAVIT, MODELS, SUFFIXES, Row, interpreter, lavit, peer, reason, tflite
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from lavit_edge.bench.floor import Floor, measure_floor
from lavit_edge.cli import run_command
from lavit_edge.errors import UserError
from lavit_edge.parity.runners import open_runtime
from lavit_edge.verdict.read import read


def runner(row: Row, threads: int) -> Callable[[], object]:
    """A function that computes one picture."""
    assert row.path is not None
    rng = np.random.default_rng(0)
    if row.runtime == "LiteRT":
        model = interpreter(row.path, threads)
        details = model.get_input_details()[0]
        model.set_tensor(details["index"], rng.integers(0, 256, details["shape"]).astype(details["dtype"]))
        return model.invoke
    run = open_runtime(row.path, threads, trusted=True)
    picture = rng.integers(0, 256, (1, 3, row.pixels, row.pixels)).astype(np.float32)
    run(picture)  # what it does not take, it says now
    return lambda: run(picture)


def measure(rows: list[Row], threads: Iterable[int], rounds: int, console: Console) -> None:
    """Fills in multiply-adds and milliseconds."""
    counted: dict[str, int] = {}
    for row in track([row for row in rows if row.path and row.runtime != "LiteRT"], "reading", console=console, transient=True):
        assert row.path is not None
        try:
            row.macs = sum(op.macs for op in read(row.path)[0].ops)
            counted.setdefault(row.model, row.macs)
        except UserError:
            row.macs = counted.get(row.model)
    for count in threads:
        runs = {}
        for index, row in enumerate(rows):
            if row.path and not row.failure:
                try:
                    runs[index] = runner(row, count)
                except Exception as error:  # the runtimes' exceptions have no common base
                    row.failure = reason(error)
        turns = track(range(rounds), f"timing, {count} thread{'s' * (count > 1)}", console=console, transient=True)
        clock = time.process_time if count == 1 else time.perf_counter
        for index, times in time_in_turns(runs, turns, clock).items():
            rows[index].ms = {**(rows[index].ms or {}), count: float(np.median(times))}


def compare(rows: list[Row], floors: dict[str, Floor]) -> None:
    """Fills in ratios and shares of the limit. LiteRT's are to ExecuTorch's lavit_mobile_s and limit: both compute in XNNPACK."""
    ours = {row.runtime: row.ms for row in rows if (row.model, row.precision) == ("lavit_mobile_s", "int8") and row.ms}
    for row in rows:
        runtime = "ExecuTorch" if row.runtime == "LiteRT" else row.runtime
        if row.ms and (reference := ours.get(runtime)):
            row.ratio = {count: ms / reference[count] for count, ms in row.ms.items()}
        if row.ms and row.macs and 1 in row.ms and (floor := floors.get(runtime)):
            limit = floor.int8_gmacs if row.precision == "int8" else floor.float_gmacs
            row.limit_share = row.macs / limit / 1e6 / row.ms[1]


def print_rows(rows: list[Row], threads: list[int], console: Console) -> None:
    """A table for each runtime, quickest first, and below it what failed."""
    for runtime in SUFFIXES:
        members = [row for row in rows if row.runtime == runtime]
        if not members:
            continue
        table = Table(title=f"{runtime}, batch 1, medians; on 1 thread processor time")
        for column in ("model", "px", "weights", "precision", "int8 by"):
            table.add_column(column, no_wrap=True)
        heads = [f"ms, {count} thr." for count in threads]
        for column in ("MMAC", "MB", *heads, "to mobile_s int8", "% of limit"):
            table.add_column(column, justify="right")
        for row in sorted((row for row in members if row.ms), key=lambda row: next(iter((row.ms or {}).values()))):
            times = row.ms or {}
            table.add_row(
                escape(row.model),
                str(row.pixels),
                row.weights,
                row.precision,
                row.int8_by or "-",
                f"{row.macs / 1e6:.0f}" if row.macs else "-",
                f"{row.megabytes:.1f}",
                *(f"{times[count]:.2f}" if count in times else "-" for count in threads),
                f"{row.ratio[threads[0]]:.2f}" if row.ratio else "-",
                f"{100 * row.limit_share:.0f}" if row.limit_share else "-",
            )
        console.print(table)
        for row in members:
            if row.failure:
                console.print(f"{row.model}, {row.precision}: {row.failure}", style="yellow", markup=False, highlight=False)


def plot(rows: list[Row], threads: int, path: Path) -> None:
    """Multiply-adds against latency, both logarithmic, a panel for each runtime; a line joins a model's two precisions."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    runtimes = [runtime for runtime in SUFFIXES if any(row.ms and row.macs and row.runtime == runtime for row in rows)]
    figure = Figure(figsize=(6.5 * len(runtimes), 5.5), layout="constrained")
    styles = {"fp32": dict(color="tab:blue", marker="o"), "int8": dict(color="tab:orange", marker="s")}
    quickest: list[dict[str, tuple[float, float]]] = []
    for axis, runtime in zip(figure.subplots(1, len(runtimes), squeeze=False, sharey=True)[0], runtimes, strict=True):
        points: dict[str, list[tuple[str, float, float]]] = {}
        for row in rows:
            if row.runtime == runtime and row.ms and row.macs:
                points.setdefault(row.model, []).append((row.precision, row.macs / 1e6, row.ms[threads]))
        for forms in points.values():
            axis.plot([macs for _, macs, _ in forms], [ms for _, _, ms in forms], color="0.8", zorder=1)
            for precision, macs, ms in forms:
                axis.scatter(macs, ms, **styles[precision])
        axis.set(xscale="log", yscale="log", title=runtime, xlabel="million multiply-adds")
        axis.margins(0.1)
        for dimension in (axis.xaxis, axis.yaxis):
            dimension.set_major_locator(LogLocator(subs=(1, 2, 5)))
            dimension.set_major_formatter(ScalarFormatter())
            dimension.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.2)
        handles = [axis.scatter([], [], label=precision, **style) for precision, style in styles.items()]
        axis.legend(handles=handles, loc="upper left")
        quickest.append({name: min(forms, key=lambda form: form[2])[1:] for name, forms in points.items()})
    for axis, named in zip(figure.axes, quickest, strict=True):  # now that the panels' common range is known
        _label(axis, named)
    figure.axes[0].set_ylabel(f"ms, median, {threads} thread{'s' * (threads > 1)}")
    figure.savefig(path, dpi=130)


def _label(axis: Any, points: dict[str, tuple[float, float]]) -> None:
    """Names in the margin at the right, in the order of their points and apart from each other, each with a line to its point."""
    low, high = np.log(axis.get_ylim())
    order = sorted(points, key=lambda name: points[name][1])
    heights = [(np.log(points[name][1]) - low) / (high - low) for name in order]
    for index in range(1, len(heights)):  # upwards, each clear of the one below
        heights[index] = max(heights[index], heights[index - 1] + 0.045)
    for name, height in zip(order, heights, strict=True):
        axis.annotate(
            name.removesuffix("_post_training_quant").removesuffix("_quant"),
            points[name],
            xytext=(1.03, height),
            textcoords=axis.transAxes,
            fontsize=8,
            va="center",
            weight="bold" if name in LAVIT else "normal",
            arrowprops=dict(arrowstyle="-", color="0.6", linewidth=0.4, shrinkA=0, shrinkB=3),
        )


def check(arguments: argparse.Namespace) -> None:
    """Raises :class:`UserError` for what would fail after minutes."""
    if arguments.out and not importlib.util.find_spec("matplotlib"):
        raise UserError("--out draws with matplotlib, which is not installed; pip install matplotlib")
    if arguments.tflite and not any(arguments.tflite.glob("*.tflite")):
        raise UserError(f"--tflite {arguments.tflite} holds no .tflite files")
    if min(arguments.threads) < 1 or arguments.rounds < 1:
        raise UserError("--threads and --rounds are numbers from 1")
    for folder in (arguments.work, arguments.out):
        if folder and folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is not a folder")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS, help="default: all")
    parser.add_argument("--tflite", type=Path, help="folder of .tflite classifiers to time in LiteRT")
    parser.add_argument("--work", type=Path, default=Path("peers"), help="folder of the artifacts; default: %(default)s")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=20, help="blocks of 5 calls per artifact; default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on stdout, tables on stderr")
    parser.add_argument("--out", type=Path, help="folder for peers.png")
    arguments = parser.parse_args()
    check(arguments)
    arguments.work.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=arguments.json, width=150)
    torch.set_num_threads(1)
    makers = [functools.partial(lavit if name in LAVIT else peer, name, arguments.work) for name in arguments.models]
    makers += [functools.partial(tflite, arguments.tflite)] if arguments.tflite else []
    rows = list(
        itertools.chain.from_iterable(
            list(maker()) for maker in track(makers, "making the artifacts", console=console, transient=True)
        )
    )
    load = os.getloadavg()[0]
    measure(rows, arguments.threads, arguments.rounds, console)
    floors = {runtime: measure_floor(runtime, 1) for runtime in ("ExecuTorch", "ONNX Runtime")}
    compare(rows, floors)
    print_rows(rows, arguments.threads, console)
    for runtime, floor in floors.items():
        console.print(f"limit of {runtime} at 1 thread: float {floor.float_gmacs:.0f}, int8 {floor.int8_gmacs:.0f} GMAC/s")
    loads = f"{load:.1f} before, {os.getloadavg()[0]:.1f} after (this program makes 1 to {max(arguments.threads)} of it)"
    console.print(f"load average {loads}, on {os.cpu_count()} cores")
    if arguments.json:
        document = {"rows": [asdict(row) | {"path": row.path.name if row.path else None} for row in rows]}
        json.dump(document | {"limits": {runtime: asdict(floor) for runtime, floor in floors.items()}}, sys.stdout, indent=1)
        print()
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        plot(rows, arguments.threads[0], arguments.out / "peers.png")
    return 0


if __name__ == "__main__":
    run_command(main)
