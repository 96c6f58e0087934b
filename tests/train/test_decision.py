"""The temperature and the threshold of a trained checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from lavit_edge.checkpoint import CARD, load_checkpoint
from lavit_edge.contract import decision
from lavit_edge.contract.contract import FORMATS
from lavit_edge.data.folder import PictureFolder
from lavit_edge.train import decision as of_training
from lavit_edge.train.initial import carried

CPU = torch.device("cpu")


def test_a_checkpoint_gets_what_fits_its_own_answers(
    fp32: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(fp32, folder)
    assert of_training.settle([folder], PictureFolder(data, "val"), 0.9, CPU) == [None], "30 pictures are too few"
    assert load_checkpoint(folder).contract == load_checkpoint(fp32).contract
    for module in (decision, of_training):
        monkeypatch.setattr(module, "FEWEST", 30)
    shutil.copytree(folder, tmp_path / "same")
    found, same = of_training.settle([folder, tmp_path / "same"], PictureFolder(data, "val"), 0.9, CPU)
    assert load_checkpoint(tmp_path / "same").config == load_checkpoint(folder).config
    assert found == same
    assert found is not None
    before, after = load_checkpoint(fp32), load_checkpoint(folder)
    assert after.contract == found.of(before.contract)
    assert after.config["contract"]["format"] == FORMATS[1]
    assert after.config["decision"] == found.to_dict()
    assert after.config["training"] == before.config["training"], "what was known of it stays"
    assert found.sentence() in (folder / CARD).read_text()
    assert all(torch.equal(value, after.model.state_dict()[name]) for name, value in before.model.state_dict().items())
    assert of_training.settle([folder], PictureFolder(data, "val"), 0.9, CPU) == [found], "and once more, it is the same"
    start = carried(after.contract, 64, ("other", "classes"), "squash")
    assert (start.temperature, start.threshold) == (1, 0), "a run that starts from it has yet to find out"
