"""Training pictures: decoded, cropped and distorted in the loader's workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lavit_edge.contract.pictures import open_picture
from lavit_edge.data.augment import crop, erase, rand_augment, random_box
from lavit_edge.data.folder import PictureFolder
from lavit_edge.train.recipe import Recipe


@dataclass(frozen=True)
class Augmentation:
    """From a picture's file, or its bytes, to what is trained on in one epoch; all chance follows from (seed, epoch, number).

    Attributes:
        size: side of the square, pixels.
        operations, magnitude, erasing: RandAugment and erasing on top of crop and flip.
        logits: ``(views, pictures, 2, K)`` of the teacher, whose crops are then used; None draws a new crop each epoch.
    """

    size: int
    seed: int
    epoch: int
    min_scale: float
    operations: int = 0
    magnitude: float = 0.0
    erasing: float = 0.0
    logits: Tensor | None = None
    flip: bool = True

    @classmethod
    def of(cls, recipe: Recipe, epoch: int, logits: Tensor | None) -> Augmentation:
        """What a recipe trains on in an epoch."""
        return cls(
            recipe.image_size, recipe.seed, epoch, recipe.min_scale,
            recipe.randaugment_operations, recipe.randaugment_magnitude, recipe.erasing, logits,
        )  # fmt: skip

    @classmethod
    def view(cls, recipe: Recipe, view: int, size: int) -> Augmentation:
        """What the teacher sees: the crops of the epochs that train on this view, not mirrored."""
        return cls(size, recipe.seed, view, recipe.min_scale, flip=False)

    def __call__(self, source: Path | bytes, number: int) -> tuple[np.ndarray, Tensor]:
        """``(uint8 (S, S, 3), teacher logits (2, K) or (0,))`` of picture ``number``.

        Raises :class:`lavit_edge.contract.pictures.UnreadablePicture`.
        """
        view = self.epoch if self.logits is None else self.epoch % len(self.logits)
        box = random_box(np.random.default_rng((self.seed, 0, view, number)), self.min_scale)
        rng = np.random.default_rng((self.seed, 1, self.epoch, number))
        image = crop(open_picture(source), box, self.size, self.flip and rng.random() < 0.5)
        image = rand_augment(image, rng, self.operations, self.magnitude)
        pixels = erase(np.array(image), rng, self.erasing)
        return pixels, torch.empty(0) if self.logits is None else self.logits[view, number]


class TrainingPictures(Dataset[tuple[np.ndarray, int, Tensor]]):
    """``(uint8 (S, S, 3), class index, teacher logits (2, K))`` of the pictures of a folder in one epoch."""

    def __init__(self, folder: PictureFolder, augmented: Augmentation) -> None:
        self.folder, self.augmented = folder, augmented

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, Tensor]:
        pixels, logits = self.augmented(self.folder.paths[index], index)
        return pixels, self.folder.targets[index], logits
