"""The comparison as one HTML page that needs nothing from elsewhere: table, plots as SVG, conditions, marks."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lavit_edge.benchmark.comparison import Row, Table
from lavit_edge.benchmark.report import Report, at, read_report
from lavit_edge.benchmark.table import HEADS, NOTE, cells, notes, ratio, reports
from lavit_edge.errors import UserError, one_line
from lavit_edge.webpage import box, head

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CURVES = 8  # more cannot be told apart
MOST_REPORTS = 20  # of a row, whose runs are drawn
MOST_CONDITIONS = 50  # rows whose conditions are listed
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#8a8a00",
)  # told apart by the colour-blind too
CONDITIONS = (
    ("created", "created"),
    ("harness", "harness.name"),
    ("build", "harness.build"),
    ("OS", "device.os"),
    ("version", "device.os_version"),
    ("CPU", "device.cpu"),
    ("cores", "device.cores"),
    ("power", "conditions.power"),
    ("low power", "conditions.low_power"),
    ("thermal", "conditions.thermal"),
    ("°C", "conditions.temperature_millicelsius"),
    ("load a core", "conditions.load_permille"),
    ("governor", "conditions.governor"),
    ("contract", "artifact.contract_sha256"),
)  # a field of conditions: before and after the run, where they differ

_STYLE = """
.key{list-style:none;padding:0;font-size:.875rem}
.key i{display:inline-block;width:1.1rem;height:.3rem;margin-right:.5rem;vertical-align:middle}
"""


def page(table: Table) -> str:
    """The page as HTML; everything that comes from reports is escaped.

    Raises:
        UserError: matplotlib is not installed; a report has gone or changed since it was loaded.
    """
    title = f"Benchmarks: {table.reports} report{'s' * (table.reports != 1)}"
    curves = table.rows[:MOST_CURVES]
    runs = [[read_report(path) for path in row.group.paths[:MOST_REPORTS]] for row in curves]
    parts = [
        head(title, _STYLE),
        _verdicts(table),
        _table(table),
        "<h2>Marks and notes</h2><ul>" + "".join(f"<li>{html.escape(line)}" for line in notes(table)) + "</ul>",
        "<h2>Runs</h2>" + _key(curves, len(table.rows)),
        "<div class=plots>",
        *_plots(table, runs),
        "</div>",
        _conditions(table),
    ]
    return "\n".join(parts) + "\n"


def _verdicts(table: Table) -> str:
    """The answer first: on a phone, the table's last column is far away."""
    base = next((row for row in table.rows if row.is_baseline), None)
    if base is None:
        return "<p>Nothing was compared: give two reports, or a baseline.</p>"
    lines = [f"<p>Against {html.escape(_name(base))}:</p><ul>"]
    for number, row in enumerate(table.rows, 1):
        if row.comparison:
            word = row.comparison.verdict
            lines.append(f"<li><span class={word}>{word}</span>, {ratio(row)}: {number}, {html.escape(_name(row))}")
        elif row is not base:
            lines.append(f"<li>no telling: {number}, {html.escape(_name(row))}")
    return "".join(lines) + "</ul>"


def _table(table: Table) -> str:
    """The verdict and its ratio come first: they are on the screen of a phone, whatever else is not."""
    order = [len(HEADS) - 1, len(HEADS) - 2, *range(len(HEADS) - 2)]
    heads = "".join(f"<th{_left(index)}>{html.escape(HEADS[index])}</th>" for index in order)
    lines = [f"<tr><th>row</th>{heads}</tr>"]
    for number, row in enumerate(table.rows, 1):
        texts = [html.escape(text) for text in cells(row)]
        verdict = f"<td class='t verdict {texts[-1]}'>{texts[-1]}</td>"
        words = "".join(f"<td{_left(index)}>{texts[index]}</td>" for index in order[1:])
        lines.append(f"<tr><td>{number}{'*' * bool(row.marks)}</td>{verdict}{words}</tr>")
    compared = any(row.comparison for row in table.rows)
    return box(f"<table>{chr(10).join(lines)}</table>") + (f"<p class=note>{html.escape(NOTE)}</p>" if compared else "")


def _left(index: int) -> str:
    return " class='t name'" if index in (0, 2, 3) else " class=t" if index in (1, 5, 13, 14) else ""


def _key(curves: list[Row], rows: int) -> str:
    lines = [f"<li><i style='background:{COLOURS[i]}'></i>{i + 1}: {html.escape(_name(row))}" for i, row in enumerate(curves)]
    more = f"<p class=note>The first {len(curves)} of {rows} rows are drawn.</p>" if rows > len(curves) else ""
    return f"<ul class=key>{''.join(lines)}</ul>{more}"


def _name(row: Row) -> str:
    values = row.group.values
    threads = f"{values['threads'] or '?'} thread{'s' * (values['threads'] != 1)}"
    words = (row.group.label, values["runtime"], values["device"] or values["cpu"] or "?", threads, reports(row))
    return one_line(", ".join(str(word) for word in words))


def _plots(table: Table, runs: list[list[Report]]) -> list[str]:
    samples = [_samples(one) for one in runs]
    minutes = [np.array(max((r["latency"]["minutes_p50_ns"] for r in one if r["latency"]), key=len, default=[])) for one in runs]
    plots = []
    if any(len(one) for one in samples):
        plots.append(_figure(lambda axes: _distribution(axes, samples), "Distribution of the runs; beyond 99 % is cut off."))
        plots.append(_figure(lambda axes: _quantiles(axes, samples), "Quantiles: so many of 100 runs took at most so long."))
    if any(len(one) > 1 for one in minutes):
        plots.append(_figure(lambda axes: _sustained(axes, minutes), "Median of each whole minute, of the longest run of a row."))
    if any(row.group.values["p50_ns"] for row in table.rows):
        plots.append(
            _figure(lambda axes: _trade(axes, table.rows), "Further right is slower; the area of a dot is the size of the file.")
        )
    if not any(len(one) > 1 for one in minutes):
        plots.append("<p class=note>No run lasted two minutes: there is no telling how the devices hold out.</p>")
    return plots


def _samples(runs: list[Report]) -> NDArray[np.float64]:
    """Milliseconds of all runs; where a report has quantiles only, those."""
    each = [r["latency"]["samples_ns"] or r["latency"]["quantiles_ns"] for r in runs if r["latency"]]
    return np.concatenate([np.asarray(one, np.float64) for one in each]) / 1e6 if each else np.empty(0)


def _figure(draw: Callable[[Axes], None], caption: str) -> str:
    try:
        import matplotlib
    except ImportError as error:
        raise UserError(f"the page is drawn with matplotlib ({error}); pip install 'lavit-edge[bench]'") from error
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": caption, "font.size": 9, "font.family": "sans-serif"}):
        figure = Figure(figsize=(4.2, 3.0), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(True, color="#e6e9ee", linewidth=0.6)
        axes.set_axisbelow(True)
        draw(axes)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = out.getvalue()
    return f"<figure>{svg[svg.index('<svg') :]}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _distribution(axes: Axes, samples: list[NDArray[np.float64]]) -> None:
    known = [one for one in samples if len(one)]
    low, high = min(one.min() for one in known), max(np.quantile(one, 0.99) for one in known)
    bins = np.linspace(low, max(high, low * 1.01, 1e-6), min(int(2 * math.sqrt(min(map(len, known)))) + 2, 61))
    for index, one in enumerate(samples):
        if len(one):
            heights = np.histogram(one, bins)[0] * 100 / len(one)
            axes.stairs(heights, bins, color=COLOURS[index], linewidth=1.4)
    axes.set_xlabel("ms")
    axes.set_ylabel("% of the runs")


def _quantiles(axes: Axes, samples: list[NDArray[np.float64]]) -> None:
    shares = np.linspace(0, 0.995, 200)
    for index, one in enumerate(samples):
        if len(one):
            axes.plot(100 * shares, np.quantile(one, shares, method="inverted_cdf"), color=COLOURS[index], linewidth=1.4)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("% of the runs")
    axes.set_ylabel("ms")


def _sustained(axes: Axes, minutes: list[NDArray[np.int64]]) -> None:
    for index, one in enumerate(minutes):
        if len(one):
            axes.plot(np.arange(1, len(one) + 1), one / 1e6, ".-", color=COLOURS[index], linewidth=1.4)
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("minute")
    axes.set_ylabel("median, ms")


def _trade(axes: Axes, rows: list[Row]) -> None:
    """Time against accuracy, or against size where no accuracy is known."""
    known = [(i, row.group.values) for i, row in enumerate(rows) if row.group.values["p50_ns"]]
    accurate = any(values["top1_permille"] is not None for _, values in known)
    drawn = [(i, values) for i, values in known if not accurate or values["top1_permille"] is not None]
    largest = max(values["bytes"] for _, values in drawn)
    for index, values in drawn:
        x, y = values["p50_ns"] / 1e6, values["top1_permille"] / 10 if accurate else values["bytes"] / 1e6
        colour = COLOURS[index] if index < MOST_CURVES else "#9aa4b2"
        axes.scatter(x, y, s=20 + 130 * values["bytes"] / max(largest, 1), color=colour, alpha=0.75, linewidth=0)
        if index < MOST_CURVES:
            label = f"{index + 1}, {values['bytes'] / 1e6:.1f} MB"
            axes.annotate(label, (x, y), xytext=(7, 5), textcoords="offset points", fontsize=8)
    axes.margins(0.25)
    axes.set_xlabel("p50, ms")
    axes.set_ylabel("top-1, %" if accurate else "size, MB")


def _conditions(table: Table) -> str:
    heads = "".join(f"<th class=t>{html.escape(head)}</th>" for head, _ in CONDITIONS)
    lines = [f"<tr><th>row</th>{heads}</tr>"]
    for number, row in enumerate(table.rows[:MOST_CONDITIONS], 1):
        report = read_report(row.group.paths[0])
        words = "".join(f"<td class=t>{html.escape(_word(report, path))}</td>" for _, path in CONDITIONS)
        lines.append(f"<tr><td>{number}</td>{words}</tr>")
    note = "Of the first report of each row" + (f", for the first {MOST_CONDITIONS}" if len(table.rows) > MOST_CONDITIONS else "")
    shown = box("<table>" + "\n".join(lines) + "</table>")
    return f"<h2>Conditions</h2>{shown}<p class=note>{note}.</p>"


def _word(report: Report, path: str) -> str:
    folder, _, name = path.partition(".")
    if folder == "conditions":
        words = [_text(name, report["conditions"][when][name]) for when in ("before", "after")]
        return " → ".join(dict.fromkeys(words))
    return _text(path, at(report, path))


def _text(path: str, value: Any) -> str:
    if value is None:
        return "–"
    if path.endswith(("millicelsius", "permille")):
        return f"{value / 1000:.1f}"
    text = one_line(str(value))
    return f"{text[:16]}..." if path.endswith("sha256") else text
