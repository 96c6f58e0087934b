"""Who is quick and right: top-1 of nets that were trained alike against their int8 latency, ExecuTorch and ONNX Runtime.

    pip install -e '.[dev]'  # timm comes with it
    OMP_NUM_THREADS=1 python benchmarks/pareto.py --out docs

Top-1 is read from the lines of benchmarks/trained_alike.py, and in int8 of trained_int8.py; a net that has none is in the tables
alone. Front and plot take that of int8 where all nets have it, else all nets' fp32. Latency is measured here, of random weights,
which change none: all artifacts of a size in turns, a block of calls each, so that another process on the machine slows all of
them; on one thread it is processor time, which is the latency without the turns of other processes. All nets take RGB in 0..255,
normalise inside, and go through the same exporters. Those of this package are quantised by it, those of timm by what a user of
each runtime would take, ExecuTorch's XNNPACKQuantizer and ONNX Runtime's static quantisation, and by this package beside it: a
table of their own has both, with how near to fp32 each is on the free pictures that it was not calibrated with. The share of the
limit is the time that the multiply-adds would take at the rate of square matrix products in the same runtime and precision, over
the time taken. Artifacts are made once, in --work. What cannot be exported is a line that says why.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from artifacts import (
    SUFFIXES,
    Row,
    compare,
    contract_of,
    made,
    measure,
    ort_static,
    pictures,
    pt2e,
    quantised,
    save_onnx,
    save_pte,
)
from entrants import ENTRANTS, TIMM, check_names, register_entrants
from rich.console import Console
from rich.progress import track
from tables import Lines, markdown, show
from torch import Tensor, nn
from trained_results import Int8Result, Result, read_results, top1_by_model

from lavit_edge.benchmark.floor import Floor, measure_floor
from lavit_edge.cli import run_command
from lavit_edge.errors import UserError
from lavit_edge.models import create_model
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.program import export_program

REFERENCE = "MobileNetV2"
CLASSES = 10  # as trained
OURS = "int8-lavit-edge"  # the precision of what another tool quantised as well
Points = dict[str, tuple[float, float]]  # model -> milliseconds, top-1 in percent
Shares = Mapping[str, list[float]]  # model -> top-1 of its seeds
Forms = dict[str, dict[str, Row]]  # model -> precision -> its artifact in a runtime


@torch.no_grad()
def random_model(name: str, pixels: int, classes: int = CLASSES) -> Deployed:
    """Random weights; batch norms have the statistics of pictures, so that values stay in range, and a weight of 1."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=classes, image_size=pixels)
    contract = contract_of(pixels, classes)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (contract.mean, contract.std))
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
            nn.init.ones_(module.weight)
    model.train()((torch.cat(pictures(pixels)) / 255 - mean) / std)
    return Deployed(model, contract).eval()


def artifacts_of(
    name: str,
    pixels: int,
    work: Path,
    make: Callable[[str, int], Deployed] = random_model,
    seen: Sequence[Tensor] = (),
    both: bool = False,
) -> Iterator[Row]:
    """Both precisions in both runtimes; made in ``work`` unless they are there.

    Args:
        make: of name and pixels.
        seen: pictures to calibrate with; by default some of the free ones.
        both: quantised by the runtimes' own tools, and by this package as the precision :data:`OURS`; else nets of timm are
            by the former, and those of this package by it, alone.
    """
    by_tools = both or name in TIMM
    model = functools.cache(lambda: make(name, pixels))
    program = functools.cache(lambda: export_program(model(), pixels))
    int8 = functools.cache(lambda: quantised(model(), seen or pictures(pixels)))
    yield made(Row(name, pixels, "fp32", "ExecuTorch"), work, lambda path: save_pte(program(), path))
    float_onnx = made(Row(name, pixels, "fp32", "ONNX Runtime"), work, lambda path: save_onnx(program(), path))
    yield float_onnx

    def by_onnx_runtime(path: Path) -> None:
        if float_onnx.path is None:
            raise RuntimeError(f"no fp32 model: {float_onnx.failure}")
        ort_static(float_onnx.path, path, seen or pictures(pixels))

    if by_tools:
        row = Row(name, pixels, "int8", "ExecuTorch", "XNNPACKQuantizer")
        yield made(row, work, lambda path: save_pte(pt2e(model(), seen or pictures(pixels)), path))
        yield made(Row(name, pixels, "int8", "ONNX Runtime", "quantize_static"), work, by_onnx_runtime)
    if both or not by_tools:
        form = OURS if by_tools else "int8"
        yield made(Row(name, pixels, form, "ExecuTorch", "lavit-edge"), work, lambda path: save_pte(int8(), path))
        yield made(Row(name, pixels, form, "ONNX Runtime", "lavit-edge"), work, lambda path: save_onnx(int8(), path))


def of_runtime(rows: list[Row], runtime: str, threads: int) -> Forms:
    """The artifacts that ran, quickest int8 first."""
    forms: Forms = {}
    for row in rows:
        if row.runtime == runtime and row.ms:
            forms.setdefault(row.model, {})[row.precision] = row
    last = float("inf")
    return dict(sorted(forms.items(), key=lambda item: milliseconds(item[1].get("int8"), threads) or last))


def milliseconds(row: Row | None, threads: int) -> float | None:
    return row.ms.get(threads) if row and row.ms else None


def over(dividend: float | None, divisor: float | None) -> float | None:
    return dividend / divisor if dividend is not None and divisor else None


def table(forms: Forms, threads: list[int], floor: Floor, top1: Mapping[str, Shares]) -> Lines:
    """A line for each model; ratios and the share of the limit on the first number of threads. ``top1``: by precision."""
    heads = [f"{precision}, {count} thr." for precision in ("int8", "fp32") for count in threads]
    ends = [f"to {REFERENCE}", "int8/fp32", "% of limit", "delegate calls"]
    lines = [["model", *(f"top-1, {precision}" for precision in top1), "int8 by", "MMAC", "MB", *heads, *ends]]
    reference = milliseconds(forms.get(REFERENCE, {}).get("int8"), threads[0])
    for name, of in forms.items():
        int8 = of.get("int8")
        ms = milliseconds(int8, threads[0])
        macs = int8.macs / 1e6 if int8 and int8.macs else None
        lines.append(
            [
                name,
                *(
                    f"{100 * fmean(shares[name]):.1f} ({len(shares[name])})" if name in shares else "-"
                    for shares in top1.values()
                ),
                int8.int8_by if int8 else "-",
                number(macs, 0),
                number(int8.megabytes if int8 else None, 1),
                *(number(milliseconds(of.get(precision), count), 2) for precision in ("int8", "fp32") for count in threads),
                number(over(ms, reference), 2),
                number(over(ms, milliseconds(of.get("fp32"), threads[0])), 2),
                number(over(macs, ms and 0.01 * ms * floor.int8_gmacs), 0) if threads[0] == 1 else "-",
                str(int8.calls) if int8 and int8.calls is not None else "-",
            ]
        )
    return lines


def beside(forms: Forms, threads: int) -> Lines:
    """A line for each model that two tools quantised: the runtime's own and this package."""
    lines = [["model", "tool", "dB, tool", "dB, lavit-edge", "same top-1, tool", "same, lavit-edge", "time, lavit-edge/tool"]]
    for name, of in forms.items():
        if (theirs := of.get("int8")) and (ours := of.get(OURS)):
            pair = (theirs, ours)
            decibels, same = (
                [number(value, 1) for value in values]
                for values in ([row.sqnr_db for row in pair], [row.same and 100 * row.same for row in pair])
            )
            ratio = over(milliseconds(ours, threads), milliseconds(theirs, threads))
            lines.append([name, theirs.int8_by, *decibels, *(f"{share} %" for share in same), number(ratio, 2)])
    return lines


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def points(forms: Forms, threads: int, top1: Shares) -> Points:
    """Of the models whose top-1 is known."""
    times = {name: milliseconds(of.get("int8"), threads) for name, of in forms.items() if name in top1}
    return {name: (ms, 100 * fmean(top1[name])) for name, ms in times.items() if ms is not None}


def beaten_by(name: str, all_points: Points) -> list[str]:
    """The models that are no slower and no worse, and one of the two better."""
    ms, top1 = all_points[name]
    return [other for other, point in all_points.items() if point[0] <= ms and point[1] >= top1 and point != (ms, top1)]


def front(all_points: Points) -> list[str]:
    """The Pareto front, quickest first: the models that none beats."""
    return sorted((name for name in all_points if not beaten_by(name, all_points)), key=lambda name: all_points[name])


def words(where: str, all_points: Points) -> Iterator[str]:
    """The front in words, and who beats the others."""
    if not all_points:
        yield f"{where}: no model has a top-1, so that there is no front."
        return
    reference = all_points.get(REFERENCE)

    def described(name: str) -> str:
        ms, top1 = all_points[name]
        return f"{name} ({f'{ms / reference[0]:.2f} of {REFERENCE}' if reference else f'{ms:.2f} ms'}, {top1:.1f} %)"

    yield f"{where}: on the front are {', '.join(map(described, front(all_points)))}."
    for name in all_points:
        if others := beaten_by(name, all_points):
            yield f"  {described(name)} is neither quicker nor better than {', '.join(others)}."


def plot(panels: dict[str, Points], top1: Mapping[str, Shares], title: str, path: Path) -> None:
    """Latency, logarithmic, against top-1, a panel for each runtime; bars reach from the worst seed to the best."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure = Figure(figsize=(6 * len(panels), 4.5), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (runtime, all_points) in zip(axes, panels.items(), strict=True):
        best = front(all_points)
        axis.step(*zip(*(all_points[name] for name in best), strict=True), where="post", color="0.7", zorder=1)
        for name, (ms, mean) in all_points.items():
            seeds = [100 * share for share in top1[runtime][name]]
            bars = [[mean - min(seeds)], [max(seeds) - mean]]
            marker, color = ("s", "tab:orange") if name in TIMM else ("o", "tab:blue")
            axis.errorbar(ms, mean, bars, marker=marker, color=color, capsize=2)
        axis.set(xscale="log", title=runtime, xlabel="ms, median")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.margins(0.1)
        axis.grid(alpha=0.2)
    for axis, all_points in zip(axes, panels.values(), strict=True):  # now that the panels' common range is known
        label(axis, all_points)
    figure.axes[0].set_ylabel("top-1, %")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=110)


def label(axis: Any, all_points: Points) -> None:
    """Names in the margin at the right, in the order of their points and apart from each other, each with a line to its point."""
    (low, high), best, height = axis.get_ylim(), front(all_points), -1.0
    for name in sorted(all_points, key=lambda name: all_points[name][1]):
        height = max((all_points[name][1] - low) / (high - low), height + 0.045)  # clear of the one below
        axis.annotate(
            name,
            all_points[name],
            xytext=(1.03, height),
            textcoords=axis.transAxes,
            fontsize=8,
            va="center",
            weight="bold" if name in best else "normal",
            arrowprops=dict(arrowstyle="-", color="0.6", linewidth=0.4, shrinkA=0, shrinkB=3),
        )


def check(arguments: argparse.Namespace) -> None:
    """Raises :class:`UserError` for what would fail after minutes."""
    check_names(arguments.models)
    if arguments.out and not importlib.util.find_spec("matplotlib"):
        raise UserError("--out draws with matplotlib, which is not installed; pip install matplotlib")
    if min(arguments.threads) < 1 or arguments.rounds < 1:
        raise UserError("--threads and --rounds are numbers from 1")
    if min(arguments.sizes) < 32 or any(pixels % 32 for pixels in arguments.sizes):
        raise UserError("--sizes are multiples of 32")
    for folder in (arguments.work, arguments.out):
        if folder and folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is not a folder")


def known_top1(arguments: argparse.Namespace) -> dict[str, dict[str, Shares]]:
    """Precision -> runtime -> top-1; in fp32 it is the training's for both."""
    floats, int8 = read_results(arguments.results, Result), read_results(arguments.int8_results, Int8Result)
    return {
        "fp32": {runtime: top1_by_model(floats) for runtime in SUFFIXES},
        "int8": {runtime: top1_by_model(result for result in int8 if result.runtime == runtime) for runtime in SUFFIXES},
    }


def report(rows: list[Row], arguments: argparse.Namespace, console: Console) -> str:
    """Prints tables, front and failures; returns the tables in Markdown, and draws the plot where --out says."""
    top1 = known_top1(arguments)
    texts, threads = [], arguments.threads
    floors = {runtime: measure_floor(runtime, 1) for runtime in SUFFIXES}
    named = {row.model for row in rows}
    judged = "int8" if all(named & set(top1["fp32"][runtime]) <= set(top1["int8"][runtime]) for runtime in SUFFIXES) else "fp32"
    for pixels in arguments.sizes:
        panels: dict[str, Points] = {}
        for runtime, floor in floors.items():
            forms = of_runtime([row for row in rows if row.pixels == pixels], runtime, threads[0])
            title = f"{runtime}, {pixels} px: ms, batch 1, medians; on 1 thread processor time; top-1 (seeds)"
            lines = table(forms, threads, floor, {precision: of[runtime] for precision, of in top1.items()})
            show(title, lines, console)
            texts.append(markdown(title, lines))
            if len(both := beside(forms, threads[0])) > 1:
                title = f"{runtime}, {pixels} px: int8 by its own tool and by lavit-edge, each against fp32"
                show(title, both, console)
                texts.append(markdown(title, both))
            panels[runtime] = points(forms, threads[0], top1[judged][runtime])
            for sentence in words(f"{runtime}, {pixels} px, top-1 in {judged}", panels[runtime]):
                console.print(sentence, markup=False, highlight=False)
        if arguments.out and pixels == arguments.sizes[0] and all(panels.values()):
            title = f"int8 latency at {pixels} px on {threads[0]} thread{'s' * (threads[0] > 1)}, top-1 in {judged}"
            plot(panels, top1[judged], title, arguments.out / "pareto.png")
    for row in rows:
        if row.failure:
            line = f"{row.model}, {row.pixels} px, {row.runtime} {row.precision}: {row.failure}"
            console.print(line, style="yellow", markup=False, highlight=False)
    for runtime, floor in floors.items():
        console.print(f"limit of {runtime} at 1 thread: float {floor.float_gmacs:.0f}, int8 {floor.int8_gmacs:.0f} GMAC/s")
    return "\n".join(texts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(ENTRANTS), help=f"default: {', '.join(ENTRANTS)}")
    parser.add_argument(
        "--sizes", nargs="+", type=int, default=[128, 160, 224], help="pixels; the first is plotted; default: %(default)s"
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="ratios are of the first; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=20, help="blocks of 5 calls per artifact; default: %(default)s")
    parser.add_argument("--results", type=Path, default=Path("docs/trained_alike.jsonl"), help="default: %(default)s")
    parser.add_argument("--int8-results", type=Path, default=Path("docs/trained_alike_int8.jsonl"), help="default: %(default)s")
    parser.add_argument("--work", type=Path, default=Path("pareto"), help="folder of the artifacts; default: %(default)s")
    parser.add_argument("--out", type=Path, help="folder for pareto.png and pareto.md")
    arguments = parser.parse_args()
    register_entrants()
    check(arguments)
    arguments.work.mkdir(parents=True, exist_ok=True)
    console = Console(width=200)
    torch.set_num_threads(1)
    rows: list[Row] = []
    cases = list(itertools.product(arguments.sizes, arguments.models))
    for pixels, name in track(cases, "making the artifacts", console=console, transient=True):
        rows += artifacts_of(name, pixels, arguments.work, both=name in TIMM)
    load = os.getloadavg()[0]
    for pixels in arguments.sizes:
        compare([row for row in rows if row.pixels == pixels], pictures(pixels, others=True))
        measure([row for row in rows if row.pixels == pixels], arguments.threads, arguments.rounds, console)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    text = report(rows, arguments, console)
    loads = f"{load:.1f} before, {os.getloadavg()[0]:.1f} after (this program makes 1 to {max(arguments.threads)} of it)"
    console.print(f"load average {loads}, on {os.cpu_count()} cores")
    if arguments.out:
        (arguments.out / "pareto.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_command(main)
