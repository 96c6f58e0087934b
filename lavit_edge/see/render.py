"""What models answered, and how often they were right, for a terminal of 80 columns."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from lavit_edge.cli import new_table
from lavit_edge.see.answers import Predicted
from lavit_edge.see.judge import Compared, Judged, PerClass, Share

MOST_CLASSES = 20  # rows of a table; the page and --json have all
MOST_MATRIX = 10  # classes whose matrix fits
MOST_CONFUSIONS = 10


def print_answers(found: Predicted, console: Console) -> None:
    """A table with a block for each picture."""
    table = new_table("picture", "label", figures=("%",), title=f"{found.model}, {found.form}")
    for answer in found.answers:
        if not answer.sure:
            table.add_row(answer.picture, Text("not sure", "bold"), "")
        for rank, each in enumerate(answer.labels):
            style = "dim" if not answer.sure else "bold" if rank == 0 else ""
            named = answer.picture if answer.sure and rank == 0 else ""
            table.add_row(named, Text(each.label, style), f"{100 * each.probability:.2f}")
        table.add_section()
    if found.answers:
        console.print(table)


def print_judged(models: Sequence[Judged], compared: Compared | None, worst: int, console: Console) -> None:
    """Figures and classes; of one model what is taken for what, calibration and the worst mistakes, of two where they differ."""
    for number, model in enumerate(models, 1):
        console.print(f"{number}: {model.model}, {model.form}", highlight=False, soft_wrap=True)
    heads = [f"{number}" for number in range(1, len(models) + 1)]
    table = new_table("", figures=heads, title=f"{len(models[0].pictures)} pictures")
    for name, *values in figures(models):
        table.add_row(name, *values)
    console.print(table)
    _classes(models, console)
    if compared is None:
        (model,) = models
        _confusion(model, console)
        _calibration(model, console)
        _worst(model, worst, console)
    else:
        _compared(models[0], models[1], compared, worst, console)


def _worst(model: Judged, most: int, console: Console) -> None:
    rows = model.worst(most)
    table = new_table("worst mistakes", "is", "taken for", figures=("%", "right %"))
    for row in rows:
        told = model.mistake(row)
        shares = (f"{100 * told[name]:.1f}" for name in ("with_probability", "probability"))
        table.add_row(short(told["picture"]), told["label"], told["taken_for"], *shares)
    if rows:
        console.print(table)


def figures(models: Sequence[Judged]) -> list[tuple[str, ...]]:
    """Name of each figure, and its value for each model."""
    rows = [("top-1 %", *(percent(each.top1) for each in models))]
    if all(each.top5 for each in models):
        rows.append(("top-5 %", *(percent(each.top5) for each in models if each.top5)))
    if any(each.threshold for each in models):
        rows.append(("sure enough to answer %", *(percent(each.answered) for each in models)))
        rows.append(("right of those %", *(percent(each.right_when_sure) if each.answered.hits else "" for each in models)))
    rows.append(("mean confidence %", *(f"{100 * each.confidence.mean():.2f}" for each in models)))
    rows.append(("calibration error (ECE), points", *(f"{100 * each.ece:.2f}" for each in models)))
    rows.append(("negative log-likelihood", *(f"{each.nll:.4f}" for each in models)))
    return rows


def percent(share: Share) -> str:
    """With its interval, in points."""
    low, high = share.interval
    return f"{100 * share.value:.2f} ({100 * low:.1f} to {100 * high:.1f})"


def sentences(first: Judged, second: Judged, compared: Compared) -> list[str]:
    """What can be said of the difference between two models."""
    low, high = (100 * value for value in compared.interval)
    difference = 100 * compared.difference
    told = "more" if low > 0 else "fewer" if high < 0 else "no telling whether more or fewer"
    return [
        f"The second has {compared.only_second} right that the first has wrong, and {compared.only_first} the other way round.",
        f"Top-1 differs by {difference:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f} (paired); McNemar's exact p "
        f"{compared.p:.2g}: {told} of such pictures would be right.",
        f"Of {compared.total} pictures, {len(compared.differing)} have another label.",
    ]


def short(picture: str) -> str:
    """File and folder of a picture: the class's folder tells pictures of one name apart."""
    return os.sep.join(picture.split(os.sep)[-2:])


def worst_classes(models: Sequence[Judged], most: int) -> list[tuple[PerClass, ...]]:
    """The classes of all models side by side, those that the first finds least before the others."""
    rows = list(zip(*(each.classes for each in models), strict=True))
    return sorted(rows, key=lambda row: row[0].found.value)[:most]


def _classes(models: Sequence[Judged], console: Console) -> None:
    rows = worst_classes(models, MOST_CLASSES)
    total = len(models[0].classes)
    which = f"the {MOST_CLASSES} of {total} classes that are found least" if total > MOST_CLASSES else "by class"
    if len(models) == 1:
        table = new_table("class", "most often taken for", figures=("pictures", "found %", "95 %"), title=which)
        for (each,) in rows:
            low, high = (100 * value for value in each.found.interval)
            taken = f"{each.taken_for} ({each.times})" if each.taken_for else ""
            table.add_row(each.label, taken, str(each.found.total), f"{100 * each.found.value:.1f}", f"{low:.0f} to {high:.0f}")
    else:
        table = new_table("class", figures=("pictures", "1: found %", "2: found %", "points"), title=which)
        for one, other in rows:
            difference = 100 * (other.found.value - one.found.value)
            found = (f"{100 * each.found.value:.1f}" for each in (one, other))
            table.add_row(one.label, str(one.found.total), *found, f"{difference:+.1f}")
    console.print(table)


def _confusion(model: Judged, console: Console) -> None:
    """The matrix where it fits, else the most frequent confusions."""
    title = "what was taken for what"
    if len(model.labels) <= MOST_MATRIX and model.confusion.max() < 10_000:  # four digits are as many as fit
        heads = [str(number) for number in range(1, len(model.labels) + 1)]
        table = new_table("class", figures=heads, title=title, padding=(0, 0))
        for number, (label, row) in enumerate(zip(model.labels, model.confusion, strict=True), 1):
            cells = [Text(str(count) if count else "·", "bold" if at == number else "") for at, count in enumerate(row, 1)]
            table.add_row(f"{number} {label}", *cells)
        console.print(table)
    elif pairs := model.confusions(MOST_CONFUSIONS):
        table = new_table("class", "taken for", figures=("times",), title=title)
        for label, taken_for, times in pairs:
            table.add_row(label, taken_for, str(times))
        console.print(table)


def _calibration(model: Judged, console: Console) -> None:
    table = new_table("confidence", figures=("pictures", "mean confidence %", "right %"), title="how sure, how right")
    for each in model.bins:
        span = f"{100 * each.low:.0f} to {100 * each.high:.0f} %"
        table.add_row(span, str(each.pictures), f"{100 * each.confidence:.1f}", f"{100 * each.right:.1f}")
    console.print(table)


def _compared(first: Judged, second: Judged, compared: Compared, most: int, console: Console) -> None:
    if compared.differing and most:
        heads = ("other label", "is", "1", "2")
        table = new_table(*heads, title=f"{min(most, len(compared.differing))} of {len(compared.differing)} pictures that differ")
        for row in compared.differing[:most]:
            one, other = first.mistake(row), second.mistake(row)
            table.add_row(short(one["picture"]), one["label"], *(_marked(each) for each in (one, other)))
        console.print(table)
    for line in sentences(first, second, compared):
        console.print(line, highlight=False)


def _marked(told: dict[str, str]) -> Text:
    return Text(told["taken_for"], "green" if told["taken_for"] == told["label"] else "red")
