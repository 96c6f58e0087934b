"""Weights to start from: another checkpoint of the same architecture, at any size and with any classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lavit_edge.checkpoint import Checkpoint
from lavit_edge.errors import UserError
from lavit_edge.models.lavit import LaViT, to_map, to_tokens


def weights_from(checkpoint: Checkpoint, model: str, fresh: dict[str, Tensor], image_size: int) -> dict[str, Tensor]:
    """The checkpoint's tensors for ``model`` at ``image_size``; the head stays ``fresh`` when the number of classes differs."""
    source = checkpoint.config["model"]["name"]
    if source != model or not isinstance(checkpoint.model, LaViT):
        raise UserError(f"--init holds a {source}, --model asks for a {model}; they must be the same architecture")
    tensors = checkpoint.model.state_dict()
    if checkpoint.contract.size != image_size:
        sr_ratios = [stage.blocks[0].attention.sr_ratio for stage in checkpoint.model.stages]  # type: ignore[union-attr, index]
        tensors = resize_tokens(tensors, checkpoint.contract.size, image_size, sr_ratios)
    if tensors["head.bias"].shape != fresh["head.bias"].shape:
        tensors |= {name: value for name, value in fresh.items() if name.startswith("head.")}
    return tensors


def resize_tokens(state: dict[str, Tensor], old_size: int, new_size: int, sr_ratios: Sequence[int]) -> dict[str, Tensor]:
    """The weights of a LaViT for ``old_size`` pixels as those for ``new_size``: whatever has an entry per token is interpolated.

    Theta and Psi are interpolated as their difference from the identity, scaled so that the sum over inputs stays the same.
    The result is a starting point for fine-tuning, not an equal model.
    """

    def over_grid(x: Tensor, old: int, new: int) -> Tensor:
        """``(old^2, ...)`` -> ``(new^2, ...)``."""
        image = to_map(x.reshape(1, old**2, -1), old)
        return to_tokens(F.interpolate(image, (new, new), mode="bicubic", align_corners=False)).reshape(-1, *x.shape[1:])

    resized = dict(state)
    for name, value in state.items():
        if not name.startswith("stages."):
            continue
        stage = int(name.split(".")[1])
        queries = [size // 2 ** (stage + 2) for size in (old_size, new_size)]
        keys = [grid // sr_ratios[stage] for grid in queries]
        if name.endswith(".position"):
            resized[name] = over_grid(value[0], *queries)[None]
        elif ".theta." in name or ".psi." in name:
            old, new = keys if ".theta." in name else queries
            if name.endswith(".bias"):
                resized[name] = over_grid(value, old, new)
            else:
                difference = over_grid(over_grid(value - torch.eye(old**2), old, new).T, old, new).T
                resized[name] = torch.eye(new**2) + difference * (old / new) ** 2
        elif ".downsample.queries." in name:  # one filter per key of the stage before
            resized[name] = over_grid(value, *(2 * grid // sr_ratios[stage - 1] for grid in queries))
        elif ".downsample.key_pool." in name:  # one filter per query of this stage
            resized[name] = over_grid(value, *queries)
    return resized
