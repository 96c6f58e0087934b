"""Weights to start from: other checkpoints of the same architecture, at any size and with any classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lavit_edge.checkpoint import Checkpoint, fill
from lavit_edge.errors import UserError
from lavit_edge.models.classifier import Classifier
from lavit_edge.traced.model import Adapted


def fill_from(checkpoints: Sequence[Checkpoint], model: Classifier, name: str, image_size: int) -> None:
    """Fills ``model`` with the mean of the checkpoints' weights (a uniform "model soup", Wortsman et al., ICML 2022).

    Raises:
        UserError: one of them is another architecture, or has other options.
    """
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    total = {key: torch.zeros_like(value, dtype=torch.float64) for key, value in fresh.items()}
    for checkpoint in checkpoints:
        fill(model, weights_from(checkpoint, name, fresh, image_size), str(checkpoint.path), name)
        for key, value in model.state_dict().items():
            total[key] += value
    model.load_state_dict({key: value / len(checkpoints) for key, value in total.items()})


def weights_from(checkpoint: Checkpoint, model: str, fresh: dict[str, Tensor], image_size: int) -> dict[str, Tensor]:
    """The checkpoint's tensors for ``model`` at ``image_size``; the head stays ``fresh`` when the number of classes differs."""
    if isinstance(checkpoint.model, Adapted):
        raise UserError(f"--init {checkpoint.path} is a model of another package; only those of this package are trained here")
    source = checkpoint.config["model"]["name"]
    if source != model:
        raise UserError(f"--init holds a {source}, --model asks for a {model}; they must be the same architecture")
    tensors = checkpoint.model.state_dict()
    if checkpoint.contract.size != image_size:
        tensors = checkpoint.model.resized(fresh)
    if tensors["head.bias"].shape != fresh["head.bias"].shape:
        tensors |= {name: value for name, value in fresh.items() if name.startswith("head.")}
    return tensors
