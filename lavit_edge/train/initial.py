"""Weights to start from: another checkpoint of the same architecture, at any size and with any classes."""

from __future__ import annotations

from torch import Tensor

from lavit_edge.checkpoint import Checkpoint
from lavit_edge.errors import UserError


def weights_from(checkpoint: Checkpoint, model: str, fresh: dict[str, Tensor], image_size: int) -> dict[str, Tensor]:
    """The checkpoint's tensors for ``model`` at ``image_size``; the head stays ``fresh`` when the number of classes differs."""
    source = checkpoint.config["model"]["name"]
    if source != model:
        raise UserError(f"--init holds a {source}, --model asks for a {model}; they must be the same architecture")
    tensors = checkpoint.model.state_dict()
    if checkpoint.contract.size != image_size:
        tensors = checkpoint.model.resized(fresh)
    if tensors["head.bias"].shape != fresh["head.bias"].shape:
        tensors |= {name: value for name, value in fresh.items() if name.startswith("head.")}
    return tensors
