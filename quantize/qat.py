"""Quantisation-aware training: the model learns to live with its rounding, the fp32 model is its teacher (or the labels are).

The quantisers are NNCF's, in the places where the int8 program will have them; gradients pass straight through the rounding, and
the ranges learn too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lavit_edge.contract import InputContract
from lavit_edge.contract.pictures import UnreadablePicture, load_input
from lavit_edge.data.folder import PictureFolder
from lavit_edge.models.deployed import Deployed, to_input
from lavit_edge.quantize.calibrate import AsymmetricQuantizer, SymmetricQuantizer, hold_ranges

Batch = tuple[Tensor, Tensor]


def shuffled(folder: PictureFolder, contract: InputContract, size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """One epoch in random order, half of the pictures mirrored: ``(size, 3, S, S)`` and class indices ``(size,)``; a smaller last
    batch is left out."""
    pictures: list[np.ndarray] = []
    targets: list[int] = []
    for index in rng.permutation(len(folder)):
        try:
            picture = load_input(folder.paths[index], contract)
        except UnreadablePicture:
            continue
        pictures.append(picture[:, ::-1].copy() if rng.random() < 0.5 else picture)
        targets.append(folder.targets[index])
        if len(pictures) == size:
            yield to_input(np.stack(pictures)), torch.tensor(targets)
            pictures, targets = [], []


def parameter_groups(model: Deployed, lr: float, range_lr: float) -> tuple[list[dict], list[dict]]:
    """Weights at ``lr``, or the share of it that the model gives them; each range parameter at ``range_lr`` times its own size.

    Ranges differ by orders of magnitude from layer to layer, and Adam's steps do not depend on the size of the gradient: one
    rate for all would leave the wide ones where they are or wreck the narrow ones. The same holds for weights that a model trains
    slowly: at the full rate, 60 steps moved LIT's offset weights by half their size, and that alone left 40.4 dB of the logits.
    """
    ranges: dict[Tensor, float] = {}
    for layer in model.modules():
        if isinstance(layer, AsymmetricQuantizer | SymmetricQuantizer):
            learnable = [value for value in layer.parameters() if value.requires_grad]
            size = max((float(value.detach().abs().mean()) for value in learnable), default=0.0)  # none behind a ReLU6
            ranges |= dict.fromkeys(learnable, size)
    shares: dict[str, float] = getattr(model.model, "learning_rates", {})
    weights: dict[float, list[Tensor]] = {}
    for name, value in model.named_parameters():
        if value.requires_grad and value not in ranges:
            weights.setdefault(next((share for part, share in shares.items() if part in name), 1.0), []).append(value)
    return (
        [{"params": values, "lr": share * lr} for share, values in weights.items()],
        [{"params": [value], "lr": range_lr * size} for value, size in ranges.items()],
    )


@dataclass(frozen=True)
class Schedule:
    """
    Attributes:
        steps: batches in all.
        lr, range_lr: learning rate of the weights; of the ranges, relative to each range.
        freeze: the step from which the ranges stay as they are, so that the weights settle on fixed grids.
    """

    steps: int
    lr: float
    range_lr: float
    freeze: int


def fine_tune(
    model: Deployed,
    teacher: nn.Module | None,
    epoch: Callable[[], Iterator[Batch]],
    schedule: Schedule,
    *,
    report: Callable[[float], None],
    device: str = "cpu",
) -> None:
    """Trains ``model`` (from :func:`calibrate`; in place). Adam without weight decay, cosine to zero.

    Args:
        teacher: the loss is the squared error against its logits over their variance: it needs no labels, and it is what SQNR
            measures. None: cross-entropy with the labels, smoothed by 0.1.
        epoch: gives the batches of one pass over the training pictures.
        report: is called after each step with its loss.
    """
    model.to(device).eval()
    if teacher is not None:
        teacher.to(device).eval()
    weights, ranges = parameter_groups(model, schedule.lr, schedule.range_lr)
    optimizer = torch.optim.Adam([*weights, *ranges])
    cosine = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / schedule.steps)))
    done = 0
    while done < schedule.steps:
        for pictures, targets in epoch():
            if done == schedule.freeze:
                for parameter in (value for group in ranges for value in group["params"]):
                    parameter.requires_grad_(False)  # Adam leaves alone what has no gradient
            pictures, targets = pictures.to(device), targets.to(device)
            if teacher is None:
                loss = cross_entropy(model(pictures), targets, label_smoothing=0.1)
            else:
                with torch.no_grad():
                    wanted = teacher(pictures)
                loss = (model(pictures) - wanted).square().mean() / wanted.var()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cosine.step()
            hold_ranges(model)
            report(loss.item())
            done += 1
            if done == schedule.steps:
                break
