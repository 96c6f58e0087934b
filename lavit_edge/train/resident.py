"""Training pictures that lie in the training device's memory, all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lavit_edge.data.augment import random_box
from lavit_edge.data.augment_batch import crop_batch
from lavit_edge.train.batches import EpochBatches, epoch_order, epoch_steps
from lavit_edge.train.cache import apply_chance, draw_chance
from lavit_edge.train.recipe import Recipe
from lavit_edge.train.sheets import DecodedPictures
from lavit_edge.train.world import World

Numbered = list[tuple[int, int]]  # of a batch: epoch and picture


class Chances(Dataset[list[Tensor]]):
    """Whole batches of what :class:`ResidentSource` needs from the host: picture numbers, targets, the teacher's word, chance."""

    def __init__(self, targets: list[int], recipe: Recipe, logits: Tensor | None) -> None:
        self.targets, self.recipe, self.logits = torch.tensor(targets), recipe, logits

    def __getitems__(self, batch: Numbered) -> list[Tensor]:
        epoch, indices = batch[0][0], [index for _, index in batch]
        view = epoch if self.logits is None else epoch % len(self.logits)
        chance = np.stack([draw_chance(self.recipe, epoch, view, index) for index in indices])
        logits = torch.empty(len(indices), 0) if self.logits is None else self.logits[view, indices]
        return [torch.tensor(indices), self.targets[indices], logits, torch.from_numpy(chance)]


class ResidentSource:
    """Batches are picked, cropped and distorted on the training device, as :class:`lavit_edge.train.cache.CachedSource` does it.

    The loader's workers only draw random numbers (77 us a picture on one core). They start once for the whole run: an epoch of
    some thousand small pictures is over in the time that starting them for each would take.
    """

    def __init__(self, pictures: DecodedPictures, recipe: Recipe, world: World, workers: int) -> None:
        self.pictures, self.recipe, self.world, self.workers = pictures, recipe, world, workers
        self.pixels = torch.from_numpy(pictures.pixels).to(world.device)
        self.stream: Iterator[list[Tensor]] = iter(())
        self.position: tuple[int, int] | None = None  # epoch and step at which the stream goes on

    def steps(self) -> int:
        r = self.recipe
        return epoch_steps(len(self.pictures), r.batch_size, r.accumulate, self.world.size)

    def batches(self, epoch: int, start: int, logits: Tensor | None) -> Iterator[list[Tensor]]:
        if self.position != (epoch, start):
            data, pinned = Chances(self.pictures.targets, self.recipe, logits), self.world.device.type == "cuda"
            loader = DataLoader(
                data, batch_sampler=self._endless(epoch, start), num_workers=self.workers, collate_fn=_as_it_is, pin_memory=pinned
            )
            self.stream = iter(loader)
        self.position = (epoch + 1, 0)
        return islice(self.stream, len(self._sampler(epoch, start)))

    def augment(self, pixels: Tensor, *chance: Tensor) -> Tensor:
        """``pixels`` are picture numbers ``(B,)``; without chance (a batch made to try the device's memory) nothing is done."""
        return apply_chance(self.pixels[pixels], chance[0], self.recipe.image_size) if chance else pixels

    def describe(self, epoch: int, step: int) -> str:
        return f"the batch of {self.pictures.files[self._sampler(epoch).of_step(step)[0][0]]}"

    def views(self, view: int, size: int) -> Iterable[Sequence[Tensor]]:
        r = self.recipe
        boxes = np.array(
            [random_box(np.random.default_rng((r.seed, 0, view, i)), r.min_scale) for i in range(len(self.pictures))]
        )
        for first in range(0, len(boxes), 64):
            chosen = slice(first, first + 64)
            upright = np.zeros(len(boxes[chosen]))
            yield [crop_batch(self.pixels[chosen], boxes[chosen], upright, size).permute(0, 2, 3, 1)]

    def identity(self) -> str:
        return self.pictures.identity

    def order(self) -> dict[str, str]:
        return {"source": "resident"}

    def _sampler(self, epoch: int, start: int = 0) -> EpochBatches:
        r = self.recipe
        order = epoch_order(r, epoch, self.pictures.targets)
        return EpochBatches(order, r.batch_size, r.accumulate, self.world.rank, self.world.size, start)

    def _endless(self, epoch: int, start: int) -> Iterator[Numbered]:
        for number in count(epoch):
            for batch in self._sampler(number, start if number == epoch else 0):
                yield [(number, index) for index in batch]


def _as_it_is(batch: list[Tensor]) -> list[Tensor]:
    return batch
