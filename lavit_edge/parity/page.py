"""The agreement matrix as a page: what the gates came to, heat maps with what they look at in frames, top-1 as bars."""

from __future__ import annotations

import html
import math

from lavit_edge.parity.agreement import FLOAT, PROGRAM, Parity
from lavit_edge.parity.render import NOISE, decibels, noise_figures, steps_of
from lavit_edge.parity.summary import Summary
from lavit_edge.webpage import box, head


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
            lines = [f"{100 * pair.agreement:.1f} %", f"{steps_of(pair.max_delta_steps)} steps"]
            if noise is not None:
                lines.append(f"{'passed' if noise.passed else 'FAILED'}, {noise.least_db:.1f} wanted")
            detail = "".join(f"<small>{line}</small>" for line in lines)
            cells.append(f"<td {gate} style='background:hsl({shade * 130:.0f} 60% 86%)'>{decibels(pair.sqnr_db)}{detail}</td>")
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
        *figures, verdict = noise_figures(row)
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
