"""Pictures of none of a model's classes: what it is to say "not sure" to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from lavit_edge.contract import InputContract
from lavit_edge.contract.pictures import load_input, to_input
from lavit_edge.data.folder import FREE_PICTURES, PictureFolder
from lavit_edge.data.inventory import normal

MADE = 40  # half of them noise, half of one colour


def outside(contract: InputContract) -> Iterator[np.ndarray]:
    """The free pictures but those of a class that bears one of the contract's labels, then noise and single colours.

    Yields:
        uint8 ``(size, size, 3)``, the same ones each time.
    """
    known = {normal(label) for label in contract.labels}
    for split in ("train", "val"):
        folder = PictureFolder(FREE_PICTURES, split)
        for path, target in zip(folder.paths, folder.targets, strict=True):
            if normal(folder.labels[target]) not in known:
                yield load_input(path, contract)
    rng = np.random.default_rng(0)
    for number in range(MADE):
        shape = (contract.size, contract.size, 3) if number % 2 else (1, 1, 3)
        picture = rng.integers(0, 256, shape, np.uint8)
        yield to_input(Image.fromarray(picture), contract)
