"""The form of a model that is quantised and exported: pictures in, logits out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lavit_edge.contract import InputContract


class Model(Protocol):
    """What has an inference form: a :class:`lavit_edge.models.classifier.Classifier`, or an adapted module."""

    def deploy(self) -> nn.Module:
        """A copy of it that computes the same."""


class Deployed(nn.Module):
    """Normalisation by the contract, then ``model.deploy()``.

    Maps ``(B, 3, size, size)`` float32 RGB in 0..255 to ``(B, classes)`` logits. Normalisation is in the graph because Core ML's
    picture input has one scale for all three channels, and because an app that types a mean gets it wrong sooner or later.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: Model, contract: InputContract) -> None:
        super().__init__()
        self.model = model.deploy()
        std = torch.tensor(contract.std).reshape(1, 3, 1, 1)
        self.register_buffer("scale", 1.0 / (255.0 * std))
        self.register_buffer("shift", -torch.tensor(contract.mean).reshape(1, 3, 1, 1) / std)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.model(pictures * self.scale + self.shift)


def to_input(pictures: np.ndarray) -> Tensor:
    """uint8 ``(B, size, size, 3)`` -> float32 ``(B, 3, size, size)``, contiguous, 0..255."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().contiguous()


@torch.no_grad()
def logits(model: nn.Module, inputs: Iterable[tuple[Tensor, list[int]]], device: str = "cpu") -> tuple[Tensor, Tensor]:
    """``(N, K)`` logits and ``(N,)`` class indices, both on the CPU."""
    model = model.to(device).eval()
    outputs, targets = [], []
    for pictures, labels in inputs:
        outputs.append(model(pictures.to(device)).cpu())
        targets += labels
    return torch.cat(outputs), torch.tensor(targets)
