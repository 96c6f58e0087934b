"""``log.csv``: a row for each epoch, and what of it is shown."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from rich.console import Console

from lavit_edge.files import write_whole

LOG = "log.csv"
SHOWN = ("epoch", "lr", "loss", "val_top1", "val_loss", "weights", "seconds", "img_per_s", "wait")


def show(row: dict[str, str], console: Console) -> None:
    """One line."""
    console.print("  ".join(f"{name} {row[name]}" for name in SHOWN if row.get(name)), soft_wrap=True)


def write_log(rows: list[dict[str, str]], out: Path) -> None:
    """Writes ``log.csv`` whole or not at all."""
    text = io.StringIO(newline="")
    if rows:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    write_whole(out / LOG, text.getvalue().encode())


def read_log(out: Path) -> list[dict[str, str]]:
    """The rows of a run's log; none where there is no log yet."""
    if not (out / LOG).is_file():
        return []
    with (out / LOG).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
