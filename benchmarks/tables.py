"""Tables on the screen and in Markdown."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Lines = list[list[str]]  # the first has the heads


def show(title: str, lines: Lines, console: Console) -> None:
    table = Table(title=title)
    for index, cell in enumerate(lines[0]):
        widest = max((len(line[index]) for line in lines[1:]), default=0)
        table.add_column(cell, justify="left" if index == 0 else "right", min_width=widest)
    for line in lines[1:]:
        table.add_row(*map(escape, line))
    console.print(table)


def markdown(title: str, lines: Lines) -> str:
    rows = [lines[0], ["---", *["---:"] * (len(lines[0]) - 1)], *lines[1:]]
    return f"**{title}**\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
