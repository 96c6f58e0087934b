"""The comparison as a table, in the terminal and in Markdown."""

from __future__ import annotations

import rich.box
import rich.table
from rich.console import Console
from rich.text import Text

from lavit_edge.benchmark.comparison import Row, Table
from lavit_edge.errors import one_line

HEADS: tuple[str, ...] = ("model", "precision", "runtime", "device", "threads", "reports")
NAMES = len(HEADS)  # these say what was measured, the others what was found
HEADS += ("p50 ms", "p90", "p99", "load ms", "first ms", "memory MB", "size MB", "ratio (95 %)", "verdict")
COLOURS = {"faster": "green", "slower": "red", "inconclusive": "yellow"}
NOTE = "ratio: time over the baseline's, with its 95 % interval, noise floor included; p50, p90, p99 of repeated runs are medians"


def cells(row: Row) -> list[str]:
    """A row's cells as text, in the order of :data:`HEADS`; times of an emulator are left out unless they are compared anyway."""
    values = row.group.values
    hidden = values["emulated"] and row.comparison is None

    def ms(name: str) -> str:
        milliseconds = (values[name] or 0) / 1e6
        return "–" if values[name] is None or hidden else f"{milliseconds:.{2 if milliseconds < 100 else 0}f}"

    def megabytes(name: str) -> str:
        return "–" if values[name] is None else f"{values[name] / 1e6:.1f}"

    runtime = f"{values['runtime']} {values['runtime_version'] or ''} {values['backend']}"
    named = [
        values["model"] or values["file"],
        values["precision"],
        runtime,
        values["device"] or values["cpu"],
        values["threads"],
    ]
    words = ["–" if value is None else one_line(str(value)) for value in (*named, reports(row))]
    times = [ms(name) for name in ("p50_ns", "p90_ns", "p99_ns", "load_ns", "first_ns")]
    return [*words, *times, megabytes("memory_bytes"), megabytes("bytes"), ratio(row), verdict(row)]


def reports(row: Row) -> str:
    """Name of the report, or of the first and how many more."""
    first, *others = row.group.paths
    return f"{first.name} and {len(others)} more" if others else first.name


def ratio(row: Row) -> str:
    if row.comparison is None:
        return "1" if row.is_baseline else "–"
    return f"{row.comparison.ratio:.3f} ({row.comparison.low:.3f} to {row.comparison.high:.3f})"


def verdict(row: Row) -> str:
    return row.comparison.verdict if row.comparison else "baseline" if row.is_baseline else "–"


def notes(table: Table) -> list[str]:
    """Lines below the table: what each mark says, the noise floors, what was left out."""
    lines = [f"{number}: {mark}" for number, row in enumerate(table.rows, 1) for mark in row.marks]
    for number, row in enumerate(table.rows, 1):
        if row.comparison:
            lines.append(f"{number}: compared by {row.comparison.by}; noise floor {100 * row.comparison.floor:.1f} %")
    return [one_line(line) for line in (*lines, *table.left_out)]


def print_table(table: Table, console: Console) -> None:
    """Prints what was measured, a line a row, then the figures, then what is to be known of them; a star: there are marks."""
    console.print(f"{table.reports} reports", highlight=False)
    lines = [cells(row) for row in table.rows]
    same = [index for index in range(NAMES) if len(lines) > 1 and len({line[index] for line in lines}) == 1]
    if same:
        told = ", ".join(f"{HEADS[index]} {lines[0][index]}" for index in same)
        console.print(f"all: {told}", highlight=False)
    shown = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)  # 80 columns are enough
    shown.add_column("", no_wrap=True)
    for index, head in enumerate(HEADS[NAMES:], NAMES):
        shown.add_column(head.replace(" ", "\n", 1), justify="left" if index > 12 else "right", no_wrap=True)
    for number, (row, line) in enumerate(zip(table.rows, lines, strict=True), 1):
        what = ", ".join(line[index] for index in range(NAMES) if index not in same)
        console.print(f"{number}: {what}", highlight=False)
        words = [Text(word.replace(" (", "\n(").replace(" to ", "–")) for word in line[NAMES:]]
        if row.comparison:
            words[-1].stylize(COLOURS[row.comparison.verdict])
        shown.add_row(f"{number}{'*' * bool(row.marks)}", *words)
    console.print(shown)
    if any(row.comparison for row in table.rows):
        console.print(NOTE, highlight=False)
    for note in notes(table):
        console.print(note, highlight=False)


def markdown(table: Table) -> str:
    """The table and the lines below it as Markdown; what comes from reports cannot break out of its cell."""
    lines = ["| " + " | ".join(("", *HEADS)) + " |", "|" + "---|" * (len(HEADS) + 1)]
    for number, row in enumerate(table.rows, 1):
        lines.append("| " + " | ".join([str(number) + r"\*" * bool(row.marks), *map(_plain, cells(row))]) + " |")
    return "\n".join([*lines, "", *(f"- {_plain(line)}" for line in notes(table))])


def _plain(text: str) -> str:
    escaped = "".join(f"\\{character}" if character in "\\`*_[]|#" else character for character in text)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
