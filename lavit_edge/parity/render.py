"""The agreement matrix as a table for the terminal and as a page."""

from __future__ import annotations

import html
import math

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lavit_edge.parity.agreement import Noise, Pair, Parity


def print_parity(title: str, parity: Parity, console: Console) -> None:
    """Top-1 of each form if there are labels, then each form against each: agreement, SQNR, largest difference."""
    if parity.labelled:
        accuracy = Table("form", "top-1 %", "95 % interval", title=f"{title}: {parity.pictures} pictures")
        for name, values in parity.top1.items():
            top1, low, high = (f"{100 * value:.2f}" for value in values)
            accuracy.add_row(name, top1, f"{low} to {high}")
        console.print(accuracy)
    caption = "cell: same top-1 %, SQNR in dB, largest |Δlogit| in 8-bit steps"
    table = Table(title=f"{title}: {parity.pictures} pictures", caption=caption, show_lines=True)
    table.add_column("", no_wrap=True)
    for number, _ in enumerate(parity.names, 1):
        table.add_column(str(number), justify="right", no_wrap=True)
    for number, row in enumerate(parity.names, 1):
        cells = [f"{number} {row}"]
        cells += ["·" if row == column else cell(parity.pair(row, column)) for column in parity.names]
        table.add_row(*cells)
    console.print(table)
    judged = Table("artifact", "SQNR, dB", "int8 against fp32", "wanted", "other top-1 / sure")
    for noise in parity.noise:
        judged.add_row(noise.artifact, *_noise(noise))
    console.print(judged)
    for line in parity.skipped:
        console.print(f"skipped: {line}")
    for line in parity.failures:
        console.print(Text.assemble(("gate failed", "red"), f": {line}"))
    if not parity.failures:
        console.print("all gates passed", style="green")


def cell(pair: Pair) -> str:
    return f"{100 * pair.agreement:.1f}\n{_decibels(pair.sqnr_db)}\n{pair.max_delta_steps:.2f}"


def _noise(noise: Noise) -> tuple[str, ...]:
    own = "" if noise.int8_sqnr_db is None else _decibels(noise.int8_sqnr_db)
    return _decibels(noise.sqnr_db), own, f"{noise.least_db:.1f}", f"{noise.differing} / {noise.sure}"


def _decibels(value: float) -> str:
    return "equal" if value == math.inf else f"{value:.1f}"


def page(title: str, matrices: dict[str, Parity], wrong_layers: list[str]) -> str:
    """A self-contained HTML page: one heat map per set of pictures, and top-1 with its interval as bars.

    Args:
        wrong_layers: a sentence for each artifact that has one.
    """
    title = html.escape(title)
    parts = [f"<!doctype html><meta charset=utf-8><title>{title}</title>{_STYLE}<h1>{title}</h1>"]
    parts += [f"<p class=bad>{html.escape(line)}</p>" for line in wrong_layers]
    for name, parity in matrices.items():
        verdict = "all gates passed" if not parity.failures else "; ".join(parity.failures)
        kind = "good" if not parity.failures else "bad"
        parts.append(f"<h2>{html.escape(name)}: {parity.pictures} pictures</h2><p class={kind}>{html.escape(verdict)}</p>")
        parts += [_heat_map(parity), _noise_table(parity)]
        if parity.labelled:
            parts.append(_bars(parity))
    return "\n".join(parts) + "\n"


_STYLE = """<style>
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1c2330}
table{border-collapse:collapse}
td,th{padding:.45rem .6rem;text-align:right;font-variant-numeric:tabular-nums;border:1px solid #fff}
th{font-weight:600;text-align:left;background:#f1f3f6}.good{color:#1a7f4b}.bad{color:#b3261e}small{color:#4a5566;display:block}
</style>"""


def _heat_map(parity: Parity) -> str:
    rows = ["<table><tr><th></th>" + "".join(f"<th>{html.escape(name)}</th>" for name in parity.names) + "</tr>"]
    for row in parity.names:
        cells = [f"<tr><th>{html.escape(row)}</th>"]
        for column in parity.names:
            if row == column:
                cells.append("<td></td>")
                continue
            pair = parity.pair(row, column)
            shade = min(max((min(pair.sqnr_db, 130) - 15) / 75, 0), 1)  # 15 dB pale red, 90 dB and up green
            noise = _decibels(pair.sqnr_db)
            detail = f"{100 * pair.agreement:.1f} % · {pair.max_delta_steps:.2f} steps"
            cells.append(f"<td style='background:hsl({shade * 130:.0f} 60% 86%)'>{noise}<small>{detail}</small></td>")
        rows.append("".join(cells) + "</tr>")
    note = "SQNR of the row against the column, dB; same top-1; largest logit difference in steps of 1/255 of the logits' range."
    return "\n".join(rows) + f"</table><p><small>{note}</small></p>"


def _noise_table(parity: Parity) -> str:
    rows = [
        "<table><tr><th>artifact</th><th>SQNR, dB</th><th>int8 against fp32</th><th>wanted</th><th>other top-1 / sure</th></tr>"
    ]
    for row in parity.noise:
        cells = "".join(f"<td>{text}</td>" for text in _noise(row))
        rows.append(f"<tr><th>{html.escape(row.artifact)}</th>{cells}</tr>")
    return "\n".join(rows) + "</table>"


def _bars(parity: Parity) -> str:
    height, left, width = 26, 170, 560
    low = math.floor(min(interval[1] for interval in parity.top1.values()) * 20) / 20
    scale = width / max(1 - low, 0.05)
    parts = [f"<svg width={left + width + 90} height={height * len(parity.names) + 34} font-size=13 role=img aria-label='top-1'>"]
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
    parts.append(f"<text x={left + width} y={y} text-anchor=end fill='#4a5566'>100 % top-1, 95 % interval</text></svg>")
    return "".join(parts)
