"""Quantisation-aware training: the model learns to live with its rounding, the fp32 model is its teacher.

The quantisers are NNCF's, in the places where the int8 program will have them; gradients pass straight through the rounding, and
the ranges learn too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from lavit_edge.contract import InputContract
from lavit_edge.data.folder import PictureFolder
from lavit_edge.models.deployed import Deployed
from lavit_edge.pictures import UnreadablePicture, load_input
from lavit_edge.quantize.calibrate import hold_ranges
from lavit_edge.quantize.evaluate import to_input
from lavit_edge.quantize.scheme import QuantizedLayer


def shuffled(folder: PictureFolder, contract: InputContract, size: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """One epoch in random order, half of the pictures mirrored: ``(size, 3, S, S)`` batches; a smaller last one is left out."""
    pictures: list[np.ndarray] = []
    for index in rng.permutation(len(folder)):
        try:
            picture = load_input(folder.paths[index], contract)
        except UnreadablePicture:
            continue
        pictures.append(picture[:, ::-1].copy() if rng.random() < 0.5 else picture)
        if len(pictures) == size:
            yield to_input(np.stack(pictures))
            pictures = []


def parameter_groups(model: nn.Module, lr: float, range_lr: float) -> list[dict]:
    """Weights at ``lr``; each range parameter at ``range_lr`` times its own size.

    Ranges differ by orders of magnitude from layer to layer, and Adam's steps do not depend on the size of the gradient: one
    rate for all would leave the wide ones where they are or wreck the narrow ones.
    """
    ranges: dict[Tensor, float] = {}
    for layer in model.modules():
        if isinstance(layer, QuantizedLayer):
            for quantizer in (layer.quantize_input, layer.quantize_weight, layer.quantize_output):
                learnable = [value for value in quantizer.parameters() if value.requires_grad]
                size = max(float(value.detach().abs().mean()) for value in learnable)
                ranges |= dict.fromkeys(learnable, size)
    weights = [value for value in model.parameters() if value.requires_grad and value not in ranges]
    return [{"params": weights, "lr": lr}] + [{"params": [value], "lr": range_lr * size} for value, size in ranges.items()]


def fine_tune(
    model: Deployed,
    teacher: nn.Module,
    epoch: Callable[[], Iterator[Tensor]],
    *,
    steps: int,
    lr: float,
    range_lr: float,
    report: Callable[[float], None],
    device: str = "cpu",
) -> None:
    """Trains ``model`` (from :func:`calibrate`; in place) for ``steps`` batches to give the teacher's logits.

    The loss is the squared error of the logits over their variance: it needs no labels, and it is what SQNR measures. Adam
    without weight decay, cosine to zero.

    Args:
        epoch: gives the batches of one pass over the training pictures.
        lr, range_lr: learning rate of the weights; of the ranges, relative to each range.
        report: is called after each step with its loss.
    """
    model.to(device).eval()
    teacher.to(device).eval()
    optimizer = torch.optim.Adam(parameter_groups(model, lr, range_lr))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    done = 0
    while done < steps:
        for pictures in epoch():
            pictures = pictures.to(device)
            with torch.no_grad():
                target = teacher(pictures)
            loss = (model(pictures) - target).square().mean() / target.var()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            hold_ranges(model)
            report(loss.item())
            done += 1
            if done == steps:
                break
