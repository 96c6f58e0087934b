"""A model whose answers a test chooses, and pictures that it tells apart by their grey."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lavit_edge.contract import InputContract
from lavit_edge.data.folder import PictureFolder
from lavit_edge.see.source import Source

LABELS = tuple("abcdef")
# of each picture: its class, and the probability of each label; grey 10 i is picture i
PICTURES = [
    (0, [0.95, 0.01, 0.01, 0.01, 0.01, 0.01]),  # right, sure
    (0, [0.90, 0.06, 0.01, 0.01, 0.01, 0.01]),  # right, less sure
    (0, [0.20, 0.70, 0.04, 0.03, 0.02, 0.01]),  # taken for b, second is right
    (1, [0.94, 0.001, 0.01, 0.014, 0.015, 0.02]),  # taken for a; the right one is last: the worst
    (1, [0.05, 0.75, 0.05, 0.05, 0.05, 0.05]),  # right
    (3, [0.30, 0.20, 0.05, 0.31, 0.10, 0.04]),  # right, hardly
]


@pytest.fixture(scope="session")
def greys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``val/<class>/<number>.png``, all of one grey."""
    root = tmp_path_factory.mktemp("greys") / "data"
    for number, (target, _) in enumerate(PICTURES):
        folder = root / "val" / LABELS[target]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (10 * number,) * 3).save(folder / f"{number}.png")
    return root


@pytest.fixture
def source() -> Callable[..., Source]:
    """``source(labels=LABELS, changes={})``: answers as :data:`PICTURES` say, or as ``changes`` do, by number of the picture."""

    def make(
        labels: tuple[str, ...] = LABELS, changes: dict[int, list[float]] | None = None, name: str = "one", **decision: float
    ) -> Source:
        answers = {number: found for number, (_, found) in enumerate(PICTURES)} | (changes or {})

        def run(picture: np.ndarray) -> np.ndarray:
            found = dict(zip(LABELS, answers[round(float(picture.mean()) / 10)], strict=True))
            return np.log([found[label] for label in labels]).astype(np.float32)

        return Source(name, "float .fake", InputContract(8, labels, **decision), run)  # type: ignore[arg-type]

    return make


@pytest.fixture
def folder(greys: Path) -> PictureFolder:
    return PictureFolder(greys, "val", LABELS)
