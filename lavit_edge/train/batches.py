"""Which pictures each process takes in each step of an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from lavit_edge.errors import UserError
from lavit_edge.train.recipe import Recipe


def epoch_steps(pictures: int, batch_size: int, accumulate: int, processes: int) -> int:
    """Whole optimiser steps in an epoch. Raises :class:`UserError` when there are fewer pictures than one step takes."""
    steps = pictures // (batch_size * accumulate * processes)
    if not steps:
        product = f"{batch_size} (batch_size) x {accumulate} (accumulate) x {processes} (processes)"
        raise UserError(f"{pictures} training pictures are fewer than one step takes, {product}; lower batch_size")
    return steps


def epoch_order(recipe: Recipe, epoch: int, targets: Sequence[int]) -> np.ndarray:
    """Picture numbers in the order of an epoch, as many as there are pictures: each once, or, by the recipe's ``balance``, each
    class equally often; a class's pictures then come anew in another order until its share is full."""
    rng = np.random.default_rng((recipe.seed, 2, epoch))
    if recipe.balance != "sampling":
        return rng.permutation(len(targets))
    of_class = np.array(targets)
    classes = rng.permutation(np.unique(of_class))  # those that come first get what does not divide
    order = []
    for rank, label in enumerate(classes):
        share = len(of_class) // len(classes) + (rank < len(of_class) % len(classes))
        own = np.flatnonzero(of_class == label)
        order.append(np.concatenate([rng.permutation(own) for _ in range(-(-share // len(own)))])[:share])
    return rng.permutation(np.concatenate(order))


def class_weights(counts: Sequence[int]) -> list[float]:
    """A weight for each class, so that all count alike and a picture counts 1 on average. Raises :class:`UserError` where the
    pictures of the classes are not known."""
    if not counts:
        raise UserError("balance=loss needs the number of pictures of each class, which this source does not tell")
    return [sum(counts) / (len(counts) * count) for count in counts]


class EpochBatches(Sampler[list[int]]):
    """The batches of one process in one epoch: its parts of a shuffle that all share. What makes no whole step is left out.

    A step of two processes takes the pictures of a step of one process with twice the batch, and an epoch can begin at any step.

    Args:
        order: picture numbers, by :func:`epoch_order`.
        batch_size, accumulate: pictures in a batch, and batches in a step of one process.
        rank, size: of this process, and how many there are.
        start: the first step.

    Attributes:
        steps: in the whole epoch.

    Raises:
        UserError: there are fewer pictures than one step takes.
    """

    def __init__(self, order: np.ndarray, batch_size: int, accumulate: int, rank: int, size: int, start: int = 0) -> None:
        self.batch_size, self.accumulate, self.rank, self.size, self.start = batch_size, accumulate, rank, size, start
        self.steps = epoch_steps(len(order), batch_size, accumulate, size)
        self.order = order

    def __len__(self) -> int:
        return (self.steps - self.start) * self.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.steps):
            yield from self.of_step(step)

    def of_step(self, step: int) -> list[list[int]]:
        """Picture numbers of the batches of one step."""
        first = step * self.accumulate * self.size
        numbers = (first + index * self.size + self.rank for index in range(self.accumulate))
        return [self.order[number * self.batch_size : (number + 1) * self.batch_size].tolist() for number in numbers]
