"""Answers and judgements as pages that need nothing from elsewhere: pictures, plots and matrix are inside."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from lavit_edge.contract.pictures import UnreadablePicture, open_picture
from lavit_edge.see.answers import Predicted
from lavit_edge.see.judge import Compared, Judged
from lavit_edge.see.render import figures, percent, sentences, short, worst_classes
from lavit_edge.webpage import box, head

SIDE = 240  # pixels of the longer side of a thumbnail
MOST_PICTURES = 1000  # on a page, which has about 10 kB of each
MOST_MATRIX = 40  # classes; beyond, the most frequent confusions are listed
MOST_CONFUSIONS = 100
_STYLE = """
.wrap{white-space:normal;min-width:9rem}.matrix td{padding:.3rem .4rem;min-width:2.2rem}.matrix th{font-weight:500}
.matrix tr:first-child th{vertical-align:bottom;writing-mode:vertical-rl;text-align:left}
.matrix th:first-child{text-align:left;position:sticky;left:0}
"""


def answers_page(found: Predicted) -> str:
    """A card for each picture, with its labels as bars."""
    title = f"{len(found.answers)} picture{'s' * (len(found.answers) != 1)}, seen by {found.model}"
    parts = [head(title), f"<p class=note>{html.escape(found.form)}</p><div class=cards>"]
    for answer in found.answers[:MOST_PICTURES]:
        bars = "".join(
            f"<span>{html.escape(each.label)}</span><span>{100 * each.probability:.1f} %</span>"
            f"<i style='width:{100 * each.probability:.1f}%'></i>"
            for each in answer.labels
        )
        unsure = "" if answer.sure else "<p><b>not sure</b>; most likely:</p>"
        parts.append(_card(answer.picture, f"{unsure}<div class=bar>{bars}</div>"))
    parts.append("</div>")
    if len(found.answers) > MOST_PICTURES:
        parts.append(f"<p class=note>The first {MOST_PICTURES} of {len(found.answers)} pictures are shown; --json has all.</p>")
    return "\n".join([*parts, _unreadable(found.unreadable)]) + "\n"


def judged_page(models: Sequence[Judged], compared: Compared | None, unreadable: Sequence[str], worst: int) -> str:
    """Figures, plots, classes, matrices, the worst mistakes, and where two models differ.

    Args:
        worst: how many mistakes, and pictures on which two models differ, are shown.
    """
    parts = [head(f"{len(models[0].pictures)} pictures, judged by {' and '.join(each.model for each in models)}", _STYLE)]
    rows = ["<tr><th class=name></th>" + "".join(f"<th class=wrap>{html.escape(_title(each))}</th>" for each in models) + "</tr>"]
    rows += [_row(name, values) for name, *values in figures(models)]
    parts.append(box(f"<table>{''.join(rows)}</table>"))
    parts.append("<p class=note>In parentheses: Wilson's 95 % interval.</p>")
    if compared is not None:
        parts += [f"<p>{html.escape(line)}</p>" for line in sentences(models[0], models[1], compared)]
    parts.append("<h2>How sure, how right</h2><div class=plots>" + "".join(map(_reliability, models)) + "</div>")
    parts.append(_classes(models))
    for model in models:
        parts.append(f"<h2>What {html.escape(model.model)} takes for what</h2>{_confusion(model)}")
    if compared is not None:
        shown = compared.differing[:worst]
        parts.append(f"<h2>Where the two differ: {len(shown)} of {len(compared.differing)} pictures</h2><div class=cards>")
        parts += [_differing(models[0], models[1], row) for row in shown]
        parts.append("</div>")
    for model in models:
        if rows_of := model.worst(worst):
            parts.append(f"<h2>The worst mistakes of {html.escape(model.model)}</h2><div class=cards>")
            parts += [_mistake(model, row) for row in rows_of]
            parts.append("</div>")
    return "\n".join([*parts, _unreadable(unreadable)]) + "\n"


def thumbnail(picture: str) -> str:
    """A small JPEG of a picture as the address of an image; empty where it cannot be read any more."""
    try:
        image = open_picture(Path(picture))
    except UnreadablePicture:
        return ""
    image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _title(model: Judged) -> str:
    return f"{model.model}, {model.form}"


def _row(name: str, values: Sequence[str]) -> str:
    return (
        f"<tr><td class=name>{html.escape(name)}</td>" + "".join(f"<td>{html.escape(value)}</td>" for value in values) + "</tr>"
    )


def _card(picture: str, below: str) -> str:
    whole, name = html.escape(picture), html.escape(short(picture))
    return f"<div class=card><img src='{thumbnail(picture)}' alt=''><small title='{whole}'>{name}</small>{below}</div>"


def _mistake(model: Judged, row: int) -> str:
    told = model.mistake(row)
    words = (f"<b>{html.escape(told[name])}</b> {100 * told[of]:.1f} %" for name, of in _BOTH)
    is_, taken = words
    return _card(told["picture"], f"<div>is {is_}<br>taken for <span class=bad>{taken}</span></div>")


_BOTH = (("label", "probability"), ("taken_for", "with_probability"))


def _differing(first: Judged, second: Judged, row: int) -> str:
    lines = [f"<div>is <b>{html.escape(first.mistake(row)['label'])}</b>"]
    for number, model in enumerate((first, second), 1):
        told = model.mistake(row)
        kind = "good" if told["taken_for"] == told["label"] else "bad"
        share = f"{100 * told['with_probability']:.1f} %"
        lines.append(f"<br>{number}: <span class={kind}>{html.escape(told['taken_for'])}</span> {share}")
    return _card(first.mistake(row)["picture"], "".join(lines) + "</div>")


def _classes(models: Sequence[Judged]) -> str:
    heads = "".join(f"<th>{f'{number}: ' * (len(models) > 1)}found %</th>" for number in range(1, len(models) + 1))
    rows = [f"<tr><th class=name>class</th>{heads}<th>pictures</th><th class=name>most often taken for</th></tr>"]
    for row in worst_classes(models, len(models[0].classes)):
        found = "".join(f"<td>{percent(each.found)}</td>" for each in row)
        taken = "; ".join(f"{each.taken_for} ({each.times})" for each in row if each.taken_for)
        cells = f"{found}<td>{row[0].found.total}</td><td class=name>{html.escape(taken)}</td>"
        rows.append(f"<tr><td class=name>{html.escape(row[0].label)}</td>{cells}</tr>")
    return f"<h2>By class, those that are found least first</h2>{box('<table>' + ''.join(rows) + '</table>')}"


def _confusion(model: Judged) -> str:
    if len(model.labels) > MOST_MATRIX:
        rows = ["<tr><th class=name>class</th><th class=name>taken for</th><th>times</th></tr>"]
        for label, taken_for, times in model.confusions(MOST_CONFUSIONS):
            names = "".join(f"<td class=name>{html.escape(name)}</td>" for name in (label, taken_for))
            rows.append(f"<tr>{names}<td>{times}</td></tr>")
        return box(f"<table>{''.join(rows)}</table>")
    heads = "".join(f"<th>{html.escape(label)}</th>" for label in model.labels)
    rows = [f"<tr><th></th>{heads}</tr>"]
    for index, (label, counts) in enumerate(zip(model.labels, model.confusion, strict=True)):
        total = max(int(counts.sum()), 1)
        cells = "".join(_cell(int(count), total, column == index) for column, count in enumerate(counts))
        rows.append(f"<tr><th>{html.escape(label)}</th>{cells}</tr>")
    note = "<p class=note>A row for each class, a column for what its pictures were taken for.</p>"
    return box(f"<table class=matrix>{''.join(rows)}</table>") + note


def _cell(count: int, total: int, right: bool) -> str:
    share = count / total
    colour = f"hsl({152 if right else 4} 60% {100 - 45 * share**0.5:.0f}%)" if count else "#fff"
    return f"<td style='background:{colour}'>{count or '·'}</td>"


def _reliability(model: Judged) -> str:
    """Share of right answers over confidence; the area of a dot is the number of pictures, and the line is where both agree."""
    left, top, side = 44, 10, 240

    def at(x: float, y: float) -> tuple[float, float]:
        return left + side * x, top + side * (1 - y)

    parts = [f"<svg viewBox='0 0 {left + side + 12} {top + side + 40}' font-size=11 role=img aria-label='reliability'>"]
    for tick in range(0, 101, 20):
        (x, y), (x0, y0) = at(tick / 100, tick / 100), at(0, 0)
        parts.append(f"<path d='M{x0} {y:.1f}h{side}' stroke='#e6e9ee'/><path d='M{x:.1f} {y0}v{-side}' stroke='#e6e9ee'/>")
        parts.append(f"<text x={left - 6} y={y + 4:.1f} text-anchor=end>{tick}</text>")
        parts.append(f"<text x={x:.1f} y={y0 + 14} text-anchor=middle>{tick}</text>")
    (x0, y0), (x1, y1) = at(0, 0), at(1, 1)
    parts.append(f"<path d='M{x0} {y0}L{x1} {y1}' stroke='#8a94a6' stroke-dasharray='4 3'/>")
    points = [at(each.confidence, each.right) for each in model.bins]
    most = max(each.pictures for each in model.bins)
    parts.append(
        f"<path d='M{'L'.join(f'{x:.1f} {y:.1f}' for x, y in points)}' fill='none' stroke='#0072b2' stroke-width='1.5'/>"
    )
    for (x, y), each in zip(points, model.bins, strict=True):
        radius = 2 + 8 * (each.pictures / most) ** 0.5
        parts.append(f"<circle cx={x:.1f} cy={y:.1f} r={radius:.1f} fill='#0072b2' fill-opacity=.6>")
        told = f"{each.pictures} pictures, {100 * each.confidence:.1f} % sure, {100 * each.right:.1f} % right"
        parts.append(f"<title>{told}</title></circle>")
    middle = left + side / 2
    parts.append(f"<text x={middle} y={top + side + 32} text-anchor=middle>confidence, %</text>")
    parts.append(f"<text x=12 y={top + side / 2} text-anchor=middle transform='rotate(-90 12 {top + side / 2})'>right, %</text>")
    caption = f"{html.escape(_title(model))}: ECE {100 * model.ece:.2f} points. Below the dashed line it is surer than right."
    return f"<figure>{''.join(parts)}</svg><figcaption>{caption}</figcaption></figure>"


def _unreadable(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    return f"<h2>Not read: {len(lines)}</h2><ul>" + "".join(f"<li>{html.escape(line)}" for line in lines) + "</ul>"
