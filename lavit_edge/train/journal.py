"""``log.csv``: a row for each epoch, what of it is shown, and what TensorBoard gets."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from lavit_edge.files import write_whole
from lavit_edge.toolchain import toolchain

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG = "log.csv"
SHOWN = ("epoch", "lr", "loss", "val_top1", "val_loss", "weights", "seconds", "img_per_s", "wait")


def open_board(out: Path) -> SummaryWriter:
    """What writes ``out/tensorboard``. Raises :class:`UserError` where TensorBoard is not installed."""
    with toolchain("TensorBoard", "tensorboard"):
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter(str(out / "tensorboard"))


def show(row: dict[str, str], console: Console, board: SummaryWriter | None = None) -> None:
    """One line; every figure of the row goes to the board, by the epoch."""
    console.print("  ".join(f"{name} {row[name]}" for name in SHOWN if row.get(name)), soft_wrap=True)
    if board is not None:
        for name, text in row.items():
            if name not in ("epoch", "weights") and text:
                board.add_scalar(name, float(text), int(row["epoch"]))
        board.flush()  # so that a run that is killed has shown what it had


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
