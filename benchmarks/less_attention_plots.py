"""The plots of benchmarks/less_attention.py."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from artifacts import Row
from attention_cost import RUNTIMES


def plot_models(models: Iterable[Any], threads: int, path: Path) -> None:
    """Int8 latency against int8 top-1 with its interval, a panel for each runtime."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axis, runtime in zip(figure.subplots(1, 2, sharey=True), RUNTIMES, strict=True):
        for model in models:
            row = next(row for row in model.rows if (row.runtime, row.precision) == (runtime, "int8"))
            if not row.ms:
                continue
            share, low, high = (100 * value for value in model.top1["int8"])
            axis.errorbar(row.ms[threads], share, [[share - low], [high - share]], marker="o", capsize=3)
            axis.annotate(model.name.removesuffix("_nano"), (row.ms[threads], share), xytext=(6, 4), textcoords="offset points")
        axis.set(title=runtime, xlabel=f"ms, median, int8, {threads} thread{'s' * (threads > 1)}")
        axis.margins(0.15)
        axis.set_xlim(left=0)
        axis.grid(alpha=0.2)
    figure.axes[0].set_ylabel("top-1, %, with 95 % interval")
    figure.savefig(path, dpi=130)


def plot_resolution(rows: dict[int, list[Row]], threads: int, path: Path) -> None:
    """Multiply-adds and latency, of int8 where it was measured, against the picture's side, both logarithmic."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    sizes = list(rows)
    precision = "int8" if any(row.precision == "int8" for row in rows[sizes[0]]) else "fp32"
    figure = Figure(figsize=(15, 5), layout="constrained")
    axes = figure.subplots(1, 3)
    for index, name in enumerate(dict.fromkeys(row.model for row in rows[sizes[0]])):
        style: dict[str, Any] = dict(marker="o", color=f"C{index}", label=name.removesuffix("_nano"))
        ours = {size: [row for row in rows[size] if row.model == name and row.precision == precision] for size in sizes}
        macs = {size: next((row.macs / 1e6 for row in ours[size] if row.macs), None) for size in sizes}
        _line(axes[0], macs, style)
        for axis, runtime in zip(axes[1:], RUNTIMES, strict=True):
            _line(axis, {s: next((r.ms[threads] for r in ours[s] if r.ms and r.runtime == runtime), None) for s in sizes}, style)
    axes[0].set(title="multiply-adds", ylabel="million")
    for axis, runtime in zip(axes[1:], RUNTIMES, strict=True):
        axis.set(title=f"{runtime}, {precision}, {threads} thread{'s' * (threads > 1)}", ylabel="ms, median")
    for axis in axes:
        axis.set(xscale="log", yscale="log", xlabel="side of the picture, pixels")
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(ScalarFormatter())
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.2)
    axes[0].legend()
    figure.savefig(path, dpi=130)


def _line(axis: Any, values: dict[int, float | None], style: dict[str, Any]) -> None:
    known = {size: value for size, value in values.items() if value is not None}
    axis.plot(list(known), list(known.values()), **style)


def plot_blocks(times: dict[tuple[int, str, str], dict[str, tuple[float, float]]], stages: Iterable[str], path: Path) -> None:
    """Milliseconds of a block by the form of its attention: a row of panels for each size, a panel for each stage."""
    from matplotlib.figure import Figure

    stages, sizes = list(stages), sorted({size for size, _, _ in times})
    forms = list(dict.fromkeys(form for _, _, form in times))
    figure = Figure(figsize=(3.8 * len(stages), 3.2 * len(sizes)), layout="constrained")
    grid = figure.subplots(len(sizes), len(stages), squeeze=False)
    for axes, size in zip(grid, sizes, strict=True):
        for axis, stage in zip(axes, stages, strict=True):
            cases = list(dict.fromkeys(case for form in forms for case in times.get((size, stage, form), {})))
            for index, form in enumerate(forms):
                each = times.get((size, stage, form), {})
                heights = [each[case][1] if case in each else 0.0 for case in cases]
                axis.bar([place + 0.27 * index for place in range(len(cases))], heights, 0.27, label=form)
            axis.set_xticks(
                [place + 0.27 for place in range(len(cases))], [case.replace(" ", "\n") for case in cases], fontsize=7
            )
            axis.set_title(f"{stage}, {size} pixels", fontsize=9)
    for axes in grid:
        axes[0].set_ylabel("ms of one block")
    grid[0][0].legend(fontsize=7)
    figure.savefig(path, dpi=130)
