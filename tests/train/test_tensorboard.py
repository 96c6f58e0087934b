"""``train --tensorboard``: the figures of the log, for TensorBoard."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
from rich.console import Console

from lavit_edge.errors import UserError
from lavit_edge.train.journal import open_board, show

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
ROWS = [
    {"epoch": "1", "lr": "0.002", "loss": "2.1991", "val_top1": "", "weights": "", "seconds": "115"},
    {"epoch": "2", "lr": "0.001", "loss": "1.9433", "val_top1": "0.5012", "weights": "average", "seconds": "108"},
]


def test_each_figure_is_a_scalar_by_epoch(tmp_path: Path) -> None:
    board = open_board(tmp_path)
    for row in ROWS:
        show(row, Console(quiet=True), board)
    board.close()
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"lr", "loss", "val_top1", "seconds"}
    assert [(each.step, round(each.value, 4)) for each in events.Scalars("loss")] == [(1, 2.1991), (2, 1.9433)]
    assert [(each.step, round(each.value, 4)) for each in events.Scalars("val_top1")] == [(2, 0.5012)]


def test_without_tensorboard_it_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"pip install 'lavit-edge\[tensorboard\]'"):
        open_board(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_writes_what_its_log_has(colours: Path, tmp_path: Path) -> None:
    from lavit_edge.train.__main__ import main

    options = ["--workers", "0", "--device", "cpu", "--tensorboard", "--set", "image_size=32", "epochs=1", "batch_size=16"]
    assert main(["--data", str(colours), "--out", str(tmp_path / "run"), *options, "warmup_epochs=0"]) == 0
    events = event_accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert events.Scalars("loss")[0].value == pytest.approx(float(row["loss"]))
