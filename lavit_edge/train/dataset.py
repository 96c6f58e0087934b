"""Training pictures: decoded, cropped and distorted in the loader's workers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lavit_edge.data.augment import crop, erase, rand_augment, random_box
from lavit_edge.data.folder import PictureFolder
from lavit_edge.pictures import open_picture


class TrainingPictures(Dataset[tuple[np.ndarray, int, Tensor]]):
    """``(uint8 (S, S, 3), class index, teacher logits (T,))`` of one epoch; all chance follows from (seed, epoch, index).

    Args:
        logits: ``(views, pictures, T)`` of the teacher, whose crops are then used; None draws a new crop each epoch.
        distort: RandAugment and erasing on top of crop and flip.
    """

    def __init__(
        self,
        folder: PictureFolder,
        size: int,
        *,
        seed: int,
        epoch: int,
        min_scale: float,
        operations: int = 0,
        magnitude: float = 0.0,
        erasing: float = 0.0,
        logits: Tensor | None = None,
        flip: bool = True,
    ) -> None:
        self.folder, self.size, self.seed, self.epoch, self.min_scale = folder, size, seed, epoch, min_scale
        self.operations, self.magnitude, self.erasing, self.logits, self.flip = operations, magnitude, erasing, logits, flip

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, Tensor]:
        view = self.epoch if self.logits is None else self.epoch % len(self.logits)
        box = random_box(np.random.default_rng((self.seed, 0, view, index)), self.min_scale)
        rng = np.random.default_rng((self.seed, 1, self.epoch, index))
        image = crop(open_picture(self.folder.paths[index]), box, self.size, self.flip and rng.random() < 0.5)
        image = rand_augment(image, rng, self.operations, self.magnitude)
        pixels = erase(np.array(image), rng, self.erasing)
        return pixels, self.folder.targets[index], torch.empty(0) if self.logits is None else self.logits[view, index]
