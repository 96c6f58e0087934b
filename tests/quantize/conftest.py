"""A tiny LaViT that has learned to tell gratings apart, and its quantised checkpoint, made once per test session."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lavit_edge.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from lavit_edge.contract import InputContract
from lavit_edge.data.folder import PictureFolder
from lavit_edge.models import create_model
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.evaluate import batches

OPTIONS = dict(dims=(16, 32, 64, 64), heads=(1, 1, 2, 2), depths=(1, 1, 2, 2), num_vanilla=(1, 1, 1, 1))
CLASSES = 5
CALIBRATION = 30  # pictures


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Noisy coloured gratings, one direction a class: 16 pictures each to train on, 6 each to judge."""
    root = tmp_path_factory.mktemp("gratings")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:64, 0:64] / 64
    for split, count in (("train", 16), ("val", 6)):
        for label in range(CLASSES):
            folder = root / split / f"direction{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                angle, waves = math.pi * label / CLASSES + 0.1 * rng.normal(), rng.uniform(3, 6)
                wave = np.sin(2 * math.pi * (waves * (x * math.cos(angle) + y * math.sin(angle)) + rng.uniform()))
                picture = 128 + 80 * wave[..., None] * rng.uniform(0.4, 1, 3) + 15 * rng.normal(size=(64, 64, 3))
                Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def fp32(data, tmp_path_factory) -> Path:
    """A trained fp32 checkpoint."""
    torch.manual_seed(0)
    folder = PictureFolder(data, "train")
    contract = InputContract(64, folder.labels)
    model = create_model("lavit_nano", num_classes=CLASSES, image_size=64, **OPTIONS)
    pictures, targets = next(batches(folder, contract, len(folder)))
    inputs, labels = (pictures / 255 - 0.45) / 0.23, torch.tensor(targets)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(80):
        chosen = torch.randint(0, len(inputs), (16,))
        loss = torch.nn.functional.cross_entropy(model(inputs[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("fp32") / "checkpoint"
    spec = {"name": "lavit_nano", "options": OPTIONS}
    save_checkpoint(
        path, model.state_dict(), model=spec, contract=contract, card="# Gratings\n", facts={"training": {"steps": 80}}
    )
    return path


@pytest.fixture(scope="session")
def int8(fp32, data, tmp_path_factory) -> Path:
    """Its quantised checkpoint, by the command, without training."""
    from lavit_edge.quantize.__main__ import main

    path = tmp_path_factory.mktemp("int8") / "checkpoint"
    arguments = ["--epochs", "0", "--calibration-pictures", str(CALIBRATION)]
    assert main(["--checkpoint", str(fp32), "--data", str(data), "--out", str(path), *arguments]) == 0
    return path


@pytest.fixture(scope="session")
def checkpoint(fp32) -> Checkpoint:
    return load_checkpoint(fp32)


@pytest.fixture(scope="session")
def deployed(checkpoint) -> Deployed:
    return Deployed(checkpoint.model, checkpoint.contract).eval()


@pytest.fixture(scope="session")
def calibration(data, checkpoint) -> list[torch.Tensor]:
    """The pictures that the command calibrates on."""
    folder = PictureFolder(data, "train", checkpoint.contract.labels).spread(CALIBRATION)
    return [picture for picture, _ in batches(folder, checkpoint.contract, 1)]


@pytest.fixture(scope="session")
def pictures(data, checkpoint) -> torch.Tensor:
    """The validation pictures, ``(N, 3, 64, 64)``."""
    folder = PictureFolder(data, "val", checkpoint.contract.labels)
    return next(batches(folder, checkpoint.contract, len(folder)))[0]
