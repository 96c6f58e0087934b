"""Where training batches come from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from torch import Tensor
from torch.utils.data import DataLoader

from lavit_edge.data.folder import PictureFolder
from lavit_edge.train.batches import EpochBatches, epoch_order, epoch_steps
from lavit_edge.train.dataset import Augmentation, TrainingPictures
from lavit_edge.train.recipe import Recipe
from lavit_edge.train.world import World


class Source(Protocol):
    """Gives the loop its batches. All chance follows from (seed, epoch, step, process), so that a run can go on at any step."""

    def steps(self) -> int:
        """Optimiser steps in an epoch. Raises :class:`lavit_edge.errors.UserError` when there are too few pictures for one."""

    def batches(self, epoch: int, start: int, logits: Tensor | None) -> Iterator[list[Tensor]]:
        """This process's batches of an epoch from step ``start`` on, ``recipe.accumulate`` to a step.

        Args:
            logits: what the teacher says, ``(views, pictures, 2, K)`` of :func:`lavit_edge.train.teacher.stored_views`.

        Yields:
            uint8 RGB ``(B, S, S, 3)``, or whatever :meth:`augment` takes in their place, int64 class indices ``(B,)``, and what
            the teacher says, ``(B, 2, K)`` or ``(B, 0)``; then what :meth:`augment` wants besides, which stays in the host's
            memory.
        """

    def augment(self, pixels: Tensor, *chance: Tensor) -> Tensor:
        """What is left to be done to a batch on the training device; uint8 RGB to uint8 RGB ``(B, S, S, 3)``."""

    def describe(self, epoch: int, step: int) -> str:
        """Names the batch of a step, for an error message."""

    def views(self, view: int, size: int) -> Iterable[Sequence[Tensor]]:
        """All pictures in order, cropped to ``size`` as in training at ``epoch = view`` and not mirrored, for the teacher."""

    def identity(self) -> str:
        """Which pictures the teacher sees."""

    def order(self) -> dict[str, str]:
        """What the order of the pictures depends on besides recipe and processes, by name; a resumed run must share it."""


class FolderSource:
    """Pictures of a folder, decoded and augmented by the loader's workers."""

    def __init__(self, pictures: PictureFolder, recipe: Recipe, world: World, workers: int) -> None:
        self.pictures, self.recipe, self.world, self.workers = pictures, recipe, world, workers

    def steps(self) -> int:
        r = self.recipe
        return epoch_steps(len(self.pictures), r.batch_size, r.accumulate, self.world.size)

    def batches(self, epoch: int, start: int, logits: Tensor | None) -> Iterator[list[Tensor]]:
        data = TrainingPictures(self.pictures, Augmentation.of(self.recipe, epoch, logits))
        pinned = self.world.device.type == "cuda"
        return iter(DataLoader(data, batch_sampler=self._sampler(epoch, start), num_workers=self.workers, pin_memory=pinned))

    def augment(self, pixels: Tensor, *chance: Tensor) -> Tensor:
        return pixels

    def describe(self, epoch: int, step: int) -> str:
        first = self.pictures.paths[self._sampler(epoch).of_step(step)[0][0]]
        return f"the batch of {first.parent.name}/{first.name}"

    def views(self, view: int, size: int) -> Iterable[Sequence[Tensor]]:
        data = TrainingPictures(self.pictures, Augmentation.view(self.recipe, view, size))
        return DataLoader(data, 64, num_workers=self.workers)

    def identity(self) -> str:
        return json.dumps([f"{path.parent.name}/{path.name}" for path in self.pictures.paths])

    def order(self) -> dict[str, str]:
        return {}

    def _sampler(self, epoch: int, start: int = 0) -> EpochBatches:
        r = self.recipe
        order = epoch_order(r, epoch, self.pictures.targets)
        return EpochBatches(order, r.batch_size, r.accumulate, self.world.rank, self.world.size, start)
