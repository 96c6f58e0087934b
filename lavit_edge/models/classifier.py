"""What training, quantisation, export and comparison ask of an architecture, and how its options are checked."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lavit_edge.models.blocks import Stage, initialise, to_map, to_tokens

DEEPEST = 1000  # blocks a stage; a configuration from elsewhere could ask for a thousand million


class Classifier(nn.Module):
    """Stages, LayerNorm, mean over tokens or the class token where the last stage has one, linear head.

    This is all that the rest of the package knows of a model. A new architecture is a file beside this one: a subclass, and
    functions under ``@register`` that build it. Reports name a layer's block by its path, so paths are ``stages.M.embedding`` and
    ``stages.M.blocks.L.attention`` or ``.ffn`` (``.mixer`` beside them) in all of them.

    Attributes:
        float_layers: shell patterns of the layers that stay in float unless a checkpoint says otherwise. The head: an int8 output
            would put logits on a grid. The first embedding: rounding the picture disturbs all that follows. On the trained
            lavit_nano it took the logits from 36.0 to 31.8 dB after calibration, for 3 % of the multiply-adds.
        undecayed: parts of names of parameters that weight decay leaves alone, beside all vectors.
        learning_rates: parts of names of parameters -> their learning rate as a multiple of the recipe's.
        folded: it is in inference form, as :meth:`deploy` gives it.

    Shapes: ``(B, 3, image_size, image_size)`` normalised RGB -> ``(B, num_classes)``.
    """

    float_layers: tuple[str, ...] = ("head", "stages.0.embedding.*")
    undecayed: tuple[str, ...] = ("position", "class_token")
    learning_rates: dict[str, float] = {}  # noqa: RUF012  (read only)
    folded = False

    def __init__(self, stages: Iterable[nn.Module], dim: int, num_classes: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.norm: nn.Module = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)
        self.apply(initialise)

    def features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Pooled features ``(B, C)``, and the maps that :meth:`auxiliary_loss` takes."""
        grid, stage = 0, None
        for stage in self.stages:
            assert isinstance(stage, Stage)
            x, grid = stage(to_map(x, grid) if grid else x), stage.grid
        assert stage is not None
        return self.norm(x[:, 0]) if stage.has_token else self.norm(x).mean(1), []

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)[0])

    def auxiliary_loss(self, maps: Sequence[Tensor]) -> Tensor:
        """What training adds to its loss, weighted by the recipe: nothing, unless the architecture has such a loss."""
        return torch.zeros(())

    def deploy(self) -> Self:
        """A copy in inference form: each part that has a ``fold`` folded, once. The original stays as it is."""
        model = copy.deepcopy(self).eval()
        for module in () if self.folded else list(model.modules()):
            if callable(fold := getattr(module, "fold", None)):
                fold()
        model.folded = True
        return model.requires_grad_()  # a bias that folding makes does not learn in quantisation-aware training otherwise

    def resized(self, fresh: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights for another image size: whatever has an entry per token is interpolated.

        Args:
            fresh: the ``state_dict`` of a model of that size.
        """
        state = self.state_dict()
        for name, value in state.items():
            if name.endswith(".position"):
                old, new = (math.isqrt(t.shape[1]) for t in (value, fresh[name]))
                kept = value.shape[1] - old**2  # the class token's
                state[name] = torch.cat([value[:, :kept], over_grid(value[0, kept:], old, new)[None]], 1)
            elif name.endswith(".position_table"):
                state[name] = over_grid(value, *(math.isqrt(len(t)) for t in (value, fresh[name])))
        return state


def over_grid(x: Tensor, old: int, new: int) -> Tensor:
    """``(old^2, ...)`` -> ``(new^2, ...)``, interpolated in the plane."""
    image = to_map(x.reshape(1, old**2, -1), old)
    return to_tokens(F.interpolate(image, (new, new), mode="bicubic", align_corners=False)).reshape(-1, *x.shape[1:])


def over_token_map(value: Tensor, old: int, new: int) -> Tensor:
    """Weight ``(old^2, old^2)`` or bias ``(old^2,)`` of a linear map over the tokens of a square grid, for a grid of ``new``.

    A weight is interpolated as its difference from the identity, scaled so that the sum over inputs stays the same.
    """
    if value.dim() == 1:
        return over_grid(value, old, new)
    difference = over_grid(over_grid(value - torch.eye(old**2), old, new).T, old, new).T
    return torch.eye(new**2) + difference * (old / new) ** 2


def check_stages(drop_path: float, **numbers: Sequence[int]) -> None:
    """Raises :class:`ValueError` unless every option has a number of at least 1 for each stage, up to four.

    Args:
        numbers: ``dims``, ``heads`` and ``depths`` among them.
    """
    dims, heads, depths = (numbers[name] for name in ("dims", "heads", "depths"))
    for name, per_stage in numbers.items():
        if not 1 <= len(per_stage) <= 4 or min(per_stage) < 1:
            raise ValueError(f"{name} takes a number of at least 1 for each of up to four stages, not {tuple(per_stage)}")
        if len(per_stage) != len(dims):
            raise ValueError(f"{name} has {len(per_stage)} stages, dims has {len(dims)}")
    if max(depths) > DEEPEST:
        raise ValueError(f"depths {tuple(depths)} are beyond reason; at most {DEEPEST} a stage")
    if any(dim % head for dim, head in zip(dims, heads, strict=True)):
        raise ValueError(f"heads {tuple(heads)} must divide dims {tuple(dims)}")
    if not 0 <= drop_path < 1:
        raise ValueError(f"drop_path must be in [0, 1), not {drop_path}")


def drop_rates(depths: Sequence[int], drop_path: float) -> list[list[float]]:
    """Stochastic depth of each block of each stage: rises linearly from 0 to ``drop_path``."""
    total = sum(depths)
    rates = [drop_path * layer / max(total - 1, 1) for layer in range(total)]
    return [[rates.pop(0) for _ in range(depth)] for depth in depths]


def shape_of(stage: int, dims: Sequence[int], image_size: int) -> tuple[int, int, int]:
    """Grid of a pyramid's stage, the width before its embedding, and the side of the embedding's patches."""
    return (image_size // 4, 3, 4) if stage == 0 else (image_size // 2 ** (stage + 2), dims[stage - 1], 2)
