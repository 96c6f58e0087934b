"""Training batches from shards, read in order and shuffled in a buffer.

The shards of the train split, in an order that follows from (seed, epoch), are one long row of samples. It is cut into a run for
each loader's worker of each process, in the middle of shards where need be. So unequal shards, or fewer shards than workers, make
no difference: an epoch has as many steps as with a folder, ``samples // (batch_size x accumulate x processes)``, and no sample
comes twice in it. What makes no whole step, at the end of the row, is left out. Each worker reads its run from front to back and
passes it through webdataset's shuffle of ``BUFFER`` samples, which wait undecoded.

The shuffle needs no picture, only their numbers, so the order of an epoch is known before anything is read: a run resumed in the
middle of an epoch opens only the shards that still have samples to give, and decodes only those.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator
from itertools import chain, islice

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from lavit_edge.contract.pictures import UnreadablePicture
from lavit_edge.data.shards import Sample, ShardedPictures, library
from lavit_edge.errors import UserError
from lavit_edge.train.batches import epoch_steps
from lavit_edge.train.dataset import Augmentation
from lavit_edge.train.recipe import Recipe
from lavit_edge.train.world import World

BUFFER = 1000  # samples; 100 MB of pictures as large as ImageNet's


class ShardSource:
    """Pictures of shards, decoded and augmented by the loader's workers; each worker makes every ``workers``-th batch of its
    process, so that their number is part of the order."""

    def __init__(self, pictures: ShardedPictures, recipe: Recipe, world: World, workers: int) -> None:
        self.pictures, self.recipe, self.world, self.workers = pictures, recipe, world, workers
        self.streams = max(1, workers)
        if recipe.balance == "sampling":
            raise UserError("balance=sampling wants a folder of pictures; shards are read in order, and take balance=loss")

    def steps(self) -> int:
        r = self.recipe
        return epoch_steps(len(self.pictures), r.batch_size, r.accumulate, self.world.size)

    def batches(self, epoch: int, start: int, logits: Tensor | None) -> Iterator[list[Tensor]]:
        augmented = Augmentation.of(self.recipe, epoch, logits)
        return iter(self._loaded(_Epoch(self, augmented, start * self.recipe.accumulate)))

    def augment(self, pixels: Tensor, *chance: Tensor) -> Tensor:
        return pixels

    def describe(self, epoch: int, step: int) -> str:
        batch = step * self.recipe.accumulate
        number = self.numbers(epoch, batch % self.streams)[batch // self.streams * self.recipe.batch_size]
        (shard,) = (s for s in self.pictures.shards if s.first <= number < s.first + s.samples)
        return f"the batch of sample {number:08} in {shard.path.name}"

    def views(self, view: int, size: int) -> Iterable[list[Tensor]]:
        return self._loaded(_View(self, Augmentation.view(self.recipe, view, size)))

    def identity(self) -> str:
        return json.dumps([(shard.path.name, shard.samples, shard.sha256) for shard in self.pictures.shards])

    def order(self) -> dict[str, str]:
        listed = hashlib.sha256(self.identity().encode()).hexdigest()
        return {"number of --workers": str(self.streams), "list of shards": listed}

    def spans(self, epoch: int, stream: int) -> list[tuple[int, int]]:
        """The run of one of this process's workers: ``(start, stop)`` sample numbers, shard by shard, in the order of reading."""
        batches = self.steps() * self.recipe.accumulate
        counts = [len(range(worker, batches, self.streams)) for worker in range(self.streams)]
        skip = (self.world.rank * batches + sum(counts[:stream])) * self.recipe.batch_size
        left = counts[stream] * self.recipe.batch_size
        out = []
        for index in np.random.default_rng((self.recipe.seed, 3, epoch)).permutation(len(self.pictures.shards)):
            shard = self.pictures.shards[index]
            count = min(max(shard.samples - skip, 0), left)
            if count:
                out.append((shard.first + skip, shard.first + skip + count))
            skip, left = max(skip - shard.samples, 0), left - count
        return out

    def numbers(self, epoch: int, stream: int) -> list[int]:
        """The sample numbers of the batches of one of this process's workers, in their order."""
        rng = random.Random(f"{self.recipe.seed} {epoch} {self.world.rank} {stream}")
        row = chain.from_iterable(range(*span) for span in self.spans(epoch, stream))
        return list(library().shuffle(BUFFER, initial=BUFFER, rng=rng)(row))

    def _loaded(self, batches: _Epoch | _View) -> _Loaded:
        return _Loaded(batches, self.workers, pinned=self.world.device.type == "cuda")


class _Epoch(IterableDataset[list[Tensor] | str]):
    """A process's batches of an epoch from batch ``start`` on; in place of one that cannot be made, the reason."""

    def __init__(self, source: ShardSource, augmented: Augmentation, start: int) -> None:
        self.source, self.augmented, self.start = source, augmented, start
        self.size = source.recipe.batch_size

    def __len__(self) -> int:
        return self.source.steps() * self.source.recipe.accumulate - self.start

    def __iter__(self) -> Iterator[list[Tensor] | str]:
        source, epoch = self.source, self.augmented.epoch
        stream = (self.start + _worker()) % source.streams  # the loader takes its first batch from worker 0
        done = len(range(stream, self.start, source.streams))
        numbers = source.numbers(epoch, stream)[done * self.size :]
        yield from _batches(source.pictures.in_order(numbers, source.spans(epoch, stream)), self.augmented, self.size)


class _View(IterableDataset[list[Tensor] | str]):
    """All samples in order, in batches of 64; a worker reads all and decodes its own, every ``workers``-th batch."""

    def __init__(self, source: ShardSource, augmented: Augmentation) -> None:
        self.source, self.augmented = source, augmented

    def __len__(self) -> int:
        return -(-len(self.source.pictures) // 64)

    def __iter__(self) -> Iterator[list[Tensor] | str]:
        samples = self.source.pictures.samples(0, len(self.source.pictures))
        own = (sample for sample in samples if sample.number // 64 % self.source.streams == _worker())
        return _batches(own, self.augmented, 64)


class _Loaded:
    """A loader of batches that were made whole in its workers."""

    def __init__(self, batches: _Epoch | _View, workers: int, pinned: bool) -> None:
        self.loader = DataLoader(batches, batch_size=None, num_workers=workers, pin_memory=pinned)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[Tensor]]:
        # Now, not at the first batch: a loader draws from torch's generator when it starts, and the loop seeds that for each step
        loading = iter(self.loader)
        return (_sound(batch) for batch in loading)


def _sound(batch: list[Tensor] | str) -> list[Tensor]:
    if isinstance(batch, str):  # an exception in a worker would arrive with the worker's traceback in its text
        raise UserError(batch)
    return batch


def _batches(samples: Iterator[Sample], augmented: Augmentation, size: int) -> Iterator[list[Tensor] | str]:
    """uint8 ``(B, S, S, 3)``, int64 ``(B,)``, logits ``(B, 2, K)`` or ``(B, 0)``; the last may be smaller."""
    try:
        while rows := [_row(sample, augmented) for sample in islice(samples, size)]:
            yield default_collate(rows)
    except UserError as error:
        yield str(error)


def _row(sample: Sample, augmented: Augmentation) -> tuple[np.ndarray, int, Tensor]:
    try:
        pixels, logits = augmented(sample.data, sample.number)
    except UnreadablePicture as error:
        raise UserError(f"{sample.source}: {error}") from error
    return pixels, sample.target, logits


def _worker() -> int:
    info = get_worker_info()
    return info.id if info else 0
