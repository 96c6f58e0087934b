"""The agreement matrix as a table for the terminal, and its figures as text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Console

from lavit_edge.cli import new_table
from lavit_edge.parity.agreement import Noise, Pair, Parity

if TYPE_CHECKING:
    pass

CELL = 5  # characters of a figure in the matrix
NOISE = ("SQNR, dB", "int8 against fp32", "wanted", "other top-1 / sure", "at most", "gate")


def print_parity(title: str, parity: Parity, console: Console) -> None:
    """Top-1 of each form if there are labels, then each form against each, and what the gates ask."""
    if parity.labelled:
        accuracy = new_table("form", figures=("top-1 %", "95 % interval"), title=f"{title}: {parity.pictures} pictures")
        for name, values in parity.top1.items():
            top1, low, high = (f"{100 * value:.2f}" for value in values)
            accuracy.add_row(name, top1, f"{low} to {high}")
        console.print(accuracy)
    caption = "cell: same top-1 %, SQNR in dB, largest |Δlogit| in 8-bit steps"
    rows = [f"{number} {row}" for number, row in enumerate(parity.names, 1)]
    fit = max(1, (console.width - max(map(len, rows)) - 4) // (CELL + 3))  # columns; 4 and 3: borders and padding
    for first in range(0, len(rows), fit):
        columns = range(first, min(first + fit, len(rows)))
        heads = [str(column + 1) for column in columns]
        table = new_table("", figures=heads, title=f"{title}: {parity.pictures} pictures", caption=caption, show_lines=True)
        for row, name in zip(rows, parity.names, strict=True):
            others = (parity.names[column] for column in columns)
            table.add_row(row, *("·" if other == name else cell(parity.pair(name, other)) for other in others))
        console.print(table)
    judged = new_table("artifact", figures=NOISE, title="what the gates ask")
    for noise in parity.noise:
        judged.add_row(noise.artifact, *noise_figures(noise), style="" if noise.passed else "red")
    console.print(judged)
    for line in parity.skipped:
        console.print(f"skipped: {line}")


def cell(pair: Pair) -> str:
    """Three lines, none wider than :data:`CELL`."""
    return f"{100 * pair.agreement:.1f}\n{decibels(pair.sqnr_db)}\n{steps_of(pair.max_delta_steps)}"


def steps_of(steps: float) -> str:
    """Three digits or more: 9.04, 22.8, 400, 1234, 1e+05."""
    if not steps < 99999:  # NaN too
        return f"{steps:.0e}"
    return f"{steps:.{2 if steps < 10 else 1 if steps < 100 else 0}f}"


def noise_figures(noise: Noise) -> tuple[str, ...]:
    own = "" if noise.int8_sqnr_db is None else decibels(noise.int8_sqnr_db)
    least, most = f"{noise.least_db:.1f}", f"{noise.most_differing:.3g}"
    return decibels(noise.sqnr_db), own, least, f"{noise.differing} / {noise.sure}", most, "pass" if noise.passed else "FAIL"


def decibels(value: float) -> str:
    return "equal" if value == math.inf else f"{value:.1f}"
