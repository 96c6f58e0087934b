"""The agreement matrix as a table for the terminal and as a page."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

from rich.console import Console

from lavit_edge.cli import new_table
from lavit_edge.parity.agreement import FLOAT, PROGRAM, Noise, Pair, Parity
from lavit_edge.webpage import box, head

if TYPE_CHECKING:
    from lavit_edge.parity.summary import Summary

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
        judged.add_row(noise.artifact, *_noise(noise), style="" if noise.passed else "red")
    console.print(judged)
    for line in parity.skipped:
        console.print(f"skipped: {line}")


def cell(pair: Pair) -> str:
    """Three lines, none wider than :data:`CELL`."""
    return f"{100 * pair.agreement:.1f}\n{_decibels(pair.sqnr_db)}\n{_steps(pair.max_delta_steps)}"


def _steps(steps: float) -> str:
    """Three digits or more: 9.04, 22.8, 400, 1234, 1e+05."""
    if not steps < 99999:  # NaN too
        return f"{steps:.0e}"
    return f"{steps:.{2 if steps < 10 else 1 if steps < 100 else 0}f}"


def _noise(noise: Noise) -> tuple[str, ...]:
    own = "" if noise.int8_sqnr_db is None else _decibels(noise.int8_sqnr_db)
    least, most = f"{noise.least_db:.1f}", f"{noise.most_differing:.3g}"
    return _decibels(noise.sqnr_db), own, least, f"{noise.differing} / {noise.sure}", most, "pass" if noise.passed else "FAIL"


def _decibels(value: float) -> str:
    return "equal" if value == math.inf else f"{value:.1f}"


def page(title: str, matrices: dict[str, Parity], found: Summary) -> str:
    """A self-contained HTML page: what the gates came to, then for each set of pictures a heat map, and top-1 as bars."""
    kind = "good" if found.passed else "bad"
    parts = [head(title, _STYLE), f"<p class={kind}>{html.escape(found.word)}</p><ul>"]
    parts += [f"<li>{html.escape(line)}" for line in (*found.lines, *found.top1)]
    parts.append("</ul>")
    if not found.passed:
        parts.append("<p>What to try:</p><ul>")
        parts += [f"<li>{html.escape(why)}: <code>{html.escape(command)}</code>" for why, command in found.steps]
        parts.append("</ul>")
    for name, parity in matrices.items():
        parts.append(f"<h2>{html.escape(name)}: {parity.pictures} pictures</h2>")
        parts += [_noise_table(parity), _heat_map(parity)]
        if parity.labelled:
            parts.append(_bars(parity))
    return "\n".join(parts) + "\n"


_STYLE = """
.heat td{padding:.45rem .6rem;border:1px solid #fff;min-width:4.2rem}.heat td small{display:block;white-space:nowrap}
.heat th{text-align:left;white-space:normal;overflow-wrap:normal}.heat th:first-child{position:sticky;left:0}
.heat td.gate{border:3px solid #1a7f4b}.heat td.gate.failed{border-color:#b3261e}
.failed{color:#b3261e;font-weight:600}figure.bars{max-width:50rem}
"""


def _heat_map(parity: Parity) -> str:
    """Cells that a gate looks at have a frame and say what is wanted: of an artifact against what it was made from, which is the
    first column, since a phone shows no more than two."""
    gated = {noise.artifact: noise for noise in parity.noise}
    reference = PROGRAM if PROGRAM in parity.names else FLOAT
    columns = [reference, *(name for name in parity.names if name != reference)]
    rows = ["<tr><th></th>" + "".join(f"<th>{_broken(name)}</th>" for name in columns) + "</tr>"]
    for row in parity.names:
        cells = [f"<tr><th>{_broken(row)}</th>"]
        for column in columns:
            if row == column:
                cells.append("<td></td>")
                continue
            pair, noise = parity.pair(row, column), gated.get(row) if column == reference else None
            shade = min(max((min(pair.sqnr_db, 130) - 15) / 75, 0), 1)  # 15 dB pale red, 90 dB and up green
            gate = "" if noise is None else "class=gate" if noise.passed else "class='gate failed'"
            lines = [f"{100 * pair.agreement:.1f} %", f"{_steps(pair.max_delta_steps)} steps"]
            if noise is not None:
                lines.append(f"{'passed' if noise.passed else 'FAILED'}, {noise.least_db:.1f} wanted")
            detail = "".join(f"<small>{line}</small>" for line in lines)
            cells.append(f"<td {gate} style='background:hsl({shade * 130:.0f} 60% 86%)'>{_decibels(pair.sqnr_db)}{detail}</td>")
        rows.append("".join(cells) + "</tr>")
    note = (
        "SQNR of the row against the column, dB; same top-1; largest logit difference in steps of 1/255 of the logits' range. "
        "A frame: what a gate looks at, green where it passed, red where it failed."
    )
    table = "<table class=heat>" + "\n".join(rows) + "</table>"
    return f"{box(table)}<p class=note>{note}</p>"


def _broken(name: str) -> str:
    """A name that may break before its suffix."""
    return html.escape(name).replace(".", "<wbr>.")


def _noise_table(parity: Parity) -> str:
    """The verdict is next to the name: on a phone the last column is far away."""
    heads = "".join(f"<th>{text}</th>" for text in NOISE[:-1])
    rows = [f"<tr><th class=t>artifact</th><th>{NOISE[-1]}</th>{heads}</tr>"]
    for row in parity.noise:
        *figures, verdict = _noise(row)
        cells = "".join(f"<td>{text}</td>" for text in figures)
        kind = "good" if row.passed else "failed"
        rows.append(f"<tr><td class=t>{html.escape(row.artifact)}</td><td class={kind}>{verdict}</td>{cells}</tr>")
    return box(f"<table>{''.join(rows)}</table>")


def _bars(parity: Parity) -> str:
    height, left, width = 26, 130, 330
    low = math.floor(min(interval[1] for interval in parity.top1.values()) * 20) / 20
    scale = width / max(1 - low, 0.05)
    size = f"{left + width + 90} {height * len(parity.names) + 34}"
    parts = [f"<figure class=bars><svg viewBox='0 0 {size}' font-size=13 role=img aria-label='top-1'>"]
    for index, name in enumerate(parity.names):
        top1, start, end = parity.top1[name]
        y = index * height + 8
        parts.append(f"<text x={left - 8} y={y + 12} text-anchor=end>{html.escape(name)}</text>")
        parts.append(f"<rect x={left} y={y} width={(top1 - low) * scale:.1f} height=16 fill='#9db7d8'/>")
        a, b = (left + (x - low) * scale for x in (start, end))
        parts.append(f"<path d='M{a:.1f} {y + 8}H{b:.1f}M{a:.1f} {y + 4}v8M{b:.1f} {y + 4}v8' stroke='#1c2330'/>")
        parts.append(f"<text x={b + 8:.1f} y={y + 12}>{100 * top1:.2f} %</text>")
    y = height * len(parity.names) + 26
    parts.append(f"<text x={left} y={y} fill='#4a5566'>{100 * low:.0f} %</text>")
    parts.append(f"<text x={left + width} y={y} text-anchor=end fill='#4a5566'>100 % top-1, 95 % interval</text></svg></figure>")
    return "".join(parts)
