"""The tiny quantised model of ``tests/conftest.py``, opened."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lavit_edge.checkpoint import INT8, Checkpoint, load_checkpoint
from lavit_edge.data.folder import PictureFolder
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.equalize import equalize
from lavit_edge.quantize.evaluate import batches


@pytest.fixture(scope="session")
def checkpoint(fp32: Path) -> Checkpoint:
    return load_checkpoint(fp32)


@pytest.fixture(scope="session")
def deployed(checkpoint: Checkpoint) -> Deployed:
    return Deployed(checkpoint.model, checkpoint.contract).eval()


@pytest.fixture(scope="session")
def calibration(data: Path, checkpoint: Checkpoint, int8: Path) -> list[torch.Tensor]:
    """The pictures that the command calibrates on."""
    count = len(load_checkpoint(int8).config["quantization"]["calibration"])
    folder = PictureFolder(data, "train", checkpoint.contract.labels).spread(count)
    return [picture for picture, _ in batches(folder, checkpoint.contract, 1)]


@pytest.fixture(scope="session")
def in_units(deployed: Deployed, calibration: list[torch.Tensor], int8: Path) -> Deployed:
    """The model in the units of its int8 form, its own or equalised: which are nearer differs by CPU."""
    own = torch.equal(load_file(int8 / INT8)["head.weight"], deployed.model.state_dict()["head.weight"])
    return deployed if own else equalize(deployed, calibration)


@pytest.fixture(scope="session")
def pictures(data: Path, checkpoint: Checkpoint) -> torch.Tensor:
    """The validation pictures, ``(N, 3, 64, 64)``."""
    folder = PictureFolder(data, "val", checkpoint.contract.labels)
    return next(batches(folder, checkpoint.contract, len(folder)))[0]
