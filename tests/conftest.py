"""What several test files share: a tiny model's checkpoint and a folder of coloured pictures. Tests leave them as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# 64 pixels: grids of 16, 8, 4 and 2, and 4 keys in every stage
TINY: dict[str, Any] = dict(dims=(16, 32, 64, 64), heads=(1, 1, 2, 2), depths=(1, 1, 2, 2), num_vanilla=(1, 1, 1, 1))


@pytest.fixture(scope="session")
def tiny_options() -> dict[str, Any]:
    """Options that make ``lavit_nano`` small enough for tests (for 64 pixels and 10 classes)."""
    return dict(TINY)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the tiny ``lavit_nano``: random weights, 64 pixels, 10 classes."""
    import torch

    from lavit_edge.checkpoint import save_checkpoint
    from lavit_edge.contract import InputContract
    from lavit_edge.models import create_model

    torch.manual_seed(0)
    model = create_model("lavit_nano", num_classes=10, image_size=64, **TINY)
    contract = InputContract(size=64, labels=tuple(f"class {i}" for i in range(10)))
    path = tmp_path_factory.mktemp("tiny") / "checkpoint"
    spec = {"name": "lavit_nano", "options": TINY}
    save_checkpoint(path, model.state_dict(), model=spec, contract=contract, card="# tiny\n")
    return path


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train/`` and ``val/`` with 16 and 4 noisy 40 x 32 pictures of each of the classes blue, green, red."""
    root = tmp_path_factory.mktemp("data") / "colours"
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 4)):
        for channel, name in ((2, "blue"), (1, "green"), (0, "red")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 90, (32, 40, 3), dtype=np.uint8)
                pixels[..., channel] += 150
                Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return root
