"""``python -m lavit_edge.train.page RUN``: a training as one HTML page that needs nothing from elsewhere. A run ends with it.

Curves from ``log.csv``; per class, confusion matrix and worst mistakes of the best epoch from ``judged.json``.

Exit codes: 0 written; 2 a mistake that one line on stderr explains.
"""

from __future__ import annotations

import argparse
import html
import re
from pathlib import Path
from typing import Any

from lavit_edge.cli import Parser, run_command
from lavit_edge.errors import UserError
from lavit_edge.files import check_shape, read_json
from lavit_edge.metrics import wilson
from lavit_edge.train.journal import LOG, read_log
from lavit_edge.train.parts import JUDGED
from lavit_edge.webpage import head

PAGE = "training.html"
MOST_CLASSES = 40  # of a confusion matrix; of more, the pairs that are confused most are listed
MOST_PAIRS = 20
WIDTH, HEIGHT, LEFT, BOTTOM = 420, 220, 58, 24  # of a plot, pixels
COLOURS = ("#0072B2", "#D55E00", "#009E73")  # told apart by the colour-blind too
# title, and what is drawn: a column of the log and its name
PLOTS = (
    ("Loss", (("loss", "training, augmented"), ("val_loss", "val"))),
    ("Top-1 on val", (("average_top1", "average of the weights"), ("last_step_top1", "weights of the last step"))),
    ("Learning rate", (("lr", "at the end of the epoch"),)),
    ("Pictures a second", (("img_per_s", "trained on"),)),
)
MISTAKE = {"name": str, "target": int, "predicted": int, "jpeg": str}

_STYLE = """
.wrong{display:grid;grid-template-columns:repeat(auto-fill,minmax(9rem,1fr));gap:1rem}
.wrong img{width:96px;height:96px;object-fit:contain;background:#f1f3f6}
"""


def write_page(run: Path) -> Path:
    """Writes ``training.html`` into a run's folder, and returns its path.

    Raises:
        UserError: there is no log yet, or ``judged.json`` is not what a run writes.
    """
    rows = read_log(run)
    if not rows:
        raise UserError(f"{run} has no {LOG}; it is no run's folder, or no epoch of it has ended")
    file = run / PAGE
    file.write_text(page(run.resolve().name, rows, read_judged(run / JUDGED)), encoding="utf-8")
    return file


def read_judged(file: Path) -> dict[str, Any] | None:
    """What the best epoch's weights made of the val split; None before one was judged. Raises :class:`UserError` as above."""
    if not file.is_file():
        return None
    judged = read_json(file)
    check_shape(judged, {"labels": list, "confusion": list, "worst": list}, str(file))
    classes = range(len(judged["labels"]))
    for entry in judged["confusion"]:
        if not (isinstance(entry, list) and len(entry) == 3 and all(type(value) is int for value in entry)):
            raise UserError(f"{file}: an entry of 'confusion' is not [class, class, pictures]")
        if entry[0] not in classes or entry[1] not in classes:
            raise UserError(f"{file}: 'confusion' has a class that is not among the labels")
    for mistake in judged["worst"]:
        check_shape(mistake, MISTAKE, str(file))
        if mistake["target"] not in classes or mistake["predicted"] not in classes:
            raise UserError(f"{file}: 'worst' has a class that is not among the labels")
        if not re.fullmatch(r"[A-Za-z0-9+/=]*", mistake["jpeg"]):
            raise UserError(f"{file}: 'jpeg' is not base64")
        if not isinstance(mistake.get("probability"), int | float):
            raise UserError(f"{file}: 'probability' of a mistake is no number")
    return judged


def page(name: str, rows: list[dict[str, str]], judged: dict[str, Any] | None) -> str:
    """The page as HTML; all that comes from files is escaped."""
    parts = [
        head(f"Training {name}", _STYLE),
        _summary(rows),
        "<div class=plots>",
        *(_figure(heading, lines, rows) for heading, lines in PLOTS),
        "</div>",
    ]
    if judged:
        parts += [_classes(judged), _confusion(judged), _mistakes(judged)]
    return "\n".join(parts) + "\n"


def _summary(rows: list[dict[str, str]]) -> str:
    tops = [(float(row["val_top1"]), row["epoch"], row.get("weights", "")) for row in rows if row.get("val_top1")]
    if not tops:
        return f"<p>{len(rows)} epochs, none judged.</p>"
    (best, epoch, weights), (last, *_) = max(tops, key=lambda row: row[0]), tops[-1]
    return (
        f"<p>{len(rows)} epochs. Val top-1: {100 * last:.2f} % at the end; the highest was {100 * best:.2f} %, after epoch "
        f"{html.escape(epoch)} ({html.escape(weights)}).</p><p class=note>An epoch that is chosen by the val split looks "
        "a little better on it than on pictures that nobody has chosen by.</p>"
    )


def _figure(heading: str, lines: tuple[tuple[str, str], ...], rows: list[dict[str, str]]) -> str:
    """A plot as SVG: a column of the log each line, over the epochs."""
    curves = [
        (label, [(float(row["epoch"]), float(row[column])) for row in rows if row.get(column)], COLOURS[number])
        for number, (column, label) in enumerate(lines)
    ]
    curves = [curve for curve in curves if curve[1]]
    points = [point for _, curve, _ in curves for point in curve]
    if not points:
        return ""
    low, high = (bound([y for _, y in points]) for bound in (min, max))
    low, high = (low, high) if high > low else (low - abs(low) / 2 - 1e-9, high + abs(high) / 2 + 1e-9)
    first, last = min(x for x, _ in points), max(max(x for x, _ in points), min(x for x, _ in points) + 1)

    def place(x: float, y: float) -> str:
        across = LEFT + (WIDTH - LEFT - 8) * (x - first) / (last - first)
        return f"{across:.1f},{HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 8) * (y - low) / (high - low):.1f}"

    drawn = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        value = low + share * (high - low)
        y = place(first, value).partition(",")[2]
        drawn.append(f'<path d="M{LEFT} {y}H{WIDTH - 8}" stroke="#dde2ea"/>')
        drawn.append(f'<text x="{LEFT - 4}" y="{y}" text-anchor="end" dominant-baseline="middle">{value:.3g}</text>')
    for x in (first, last):
        across = place(x, low).partition(",")[0]
        drawn.append(f'<text x="{across}" y="{HEIGHT - 8}" text-anchor="middle">{x:.0f}</text>')
    for _, curve, colour in curves:
        drawn.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{" ".join(place(*p) for p in curve)}"/>')
        drawn += [f'<circle r="2" fill="{colour}" cx="{x}" cy="{y}"/>' for x, y in (place(*p).split(",") for p in curve)]
    keys = ", ".join(
        f"<span style='color:{colour}'>&#9632;</span> {html.escape(label)}" for label, curve, colour in curves if curve
    )
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" font-size="11" font-family="system-ui,sans-serif" fill="#4a5566">'
    return f"<figure><figcaption><b>{html.escape(heading)}</b> by epoch: {keys}</figcaption>{svg}{''.join(drawn)}</svg></figure>"


def _counts(judged: dict[str, Any]) -> list[dict[int, int]]:
    """Of each class, what its pictures were taken for and how often."""
    rows: list[dict[int, int]] = [{} for _ in judged["labels"]]
    for target, predicted, count in judged["confusion"]:
        rows[target][predicted] = count
    return rows


def _classes(judged: dict[str, Any]) -> str:
    lines = ["<h2>Each class, best epoch</h2><div class=box><table>"]
    lines.append(
        "<tr><th class=t>class</th><th>pictures</th><th>right</th><th>95 % interval</th><th class=t>mostly taken for</th></tr>"
    )
    rows = _counts(judged)
    for label, (target, row) in zip(judged["labels"], enumerate(rows), strict=True):
        total, right = sum(row.values()), row.get(target, 0)
        others = sorted((-count, predicted) for predicted, count in row.items() if predicted != target)
        mistaken = ", ".join(f"{judged['labels'][predicted]} ({-count})" for count, predicted in others[:2])
        share = "<td>-</td><td>-</td>"
        if total:
            low, high = wilson(right, total)
            share = f"<td>{100 * right / total:.1f} %</td><td>{100 * low:.0f} to {100 * high:.0f} %</td>"
        lines.append(
            f"<tr><td class=t>{html.escape(label)}</td><td>{total}</td>{share}<td class=t>{html.escape(mistaken)}</td></tr>"
        )
    return "\n".join(lines) + "</table></div>"


def _confusion(judged: dict[str, Any]) -> str:
    labels, rows = judged["labels"], _counts(judged)
    if len(labels) > MOST_CLASSES:
        pairs = sorted((-n, target, other) for target, row in enumerate(rows) for other, n in row.items() if other != target)
        items = "".join(f"<li>{html.escape(f'{labels[t]} taken for {labels[p]}: {-n}')}</li>" for n, t, p in pairs[:MOST_PAIRS])
        return f"<h2>Most confused</h2><ol>{items}</ol>"
    heads = "".join(f"<th title='{html.escape(label, quote=True)}'>{number}</th>" for number, label in enumerate(labels, 1))
    lines = [f"<h2>Confusion matrix</h2><div class=box><table><tr><th class=t>is \\ taken for</th>{heads}</tr>"]
    for target, (label, row) in enumerate(zip(labels, rows, strict=True)):
        total, cells = max(sum(row.values()), 1), []
        for predicted in range(len(labels)):
            count, colour = row.get(predicted, 0), "0,114,178" if predicted == target else "213,94,0"
            shade = f" style='background:rgba({colour},{0.75 * count / total:.2f})'" if count else ""
            cells.append(f"<td{shade}>{count or ''}</td>")
        lines.append(f"<tr><th class=t>{target + 1} {html.escape(label)}</th>{''.join(cells)}</tr>")
    return "\n".join(lines) + "</table></div>"


def _mistakes(judged: dict[str, Any]) -> str:
    if not judged["worst"]:
        return "<h2>Worst mistakes</h2><p>None.</p>"
    figures = []
    for mistake in judged["worst"]:
        words = f"{judged['labels'][mistake['target']]}, taken for {judged['labels'][mistake['predicted']]}"
        caption = html.escape(f"{words} ({100 * mistake['probability']:.0f} %): {mistake['name']}")
        source = f"data:image/jpeg;base64,{mistake['jpeg']}"
        figures.append(f"<figure><img alt='' src='{source}'><figcaption>{caption}</figcaption></figure>")
    return "<h2>Worst mistakes, as the model sees them</h2><div class=wrong>" + "\n".join(figures) + "</div>"


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.train.page", description="A training, running or done, as one HTML page.")
    p.add_argument("run", type=Path, help="the --out of lavit_edge.train")
    return p


def main(argv: list[str] | None = None) -> int:
    print(f"wrote {write_page(parser().parse_args(argv).run)}")
    return 0


if __name__ == "__main__":
    run_command(main)
