"""What ``lavit_mobile_s`` could be instead: the variants whose latency docs/architectures.md sets side by side.

    export OMP_NUM_THREADS=1
    python benchmarks/pareto.py --models MobileNetV2 lavit_mobile_s lavit_mobile_s-hardswish ... --sizes 160 --threads 1 \
        --results explored.jsonl
    python benchmarks/trained_alike.py --models lavit_mobile_s lavit_mobile_s-hardswish ... --set epochs=4 \
        --results explored.jsonl --data IMAGENETTE

Sketches to decide by, and no part of the package. What options of the model can say is a line of :data:`OPTIONS`; the others
change a model that has been built.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lavit_edge.models import create_model
from lavit_edge.models.blocks import Add, initialise
from lavit_edge.models.classifier import Classifier
from lavit_edge.models.lavit_mobile import Attention, ConvNorm, LaViTMobile, LessAttention, VanillaAttention

Change = Callable[[Any, int], None]

OF = "lavit_mobile_s"
OPTIONS: dict[str, dict[str, Any]] = {
    "none-deep": dict(heads=(0, 0, 0, 0), depths=(1, 1, 6, 4)),
    "none-wide": dict(heads=(0, 0, 0, 0), dims=(32, 64, 128, 288)),
    "one-head": dict(heads=(0, 0, 0, 1)),
    "eight-heads": dict(heads=(0, 0, 0, 8)),
    "full-values": dict(value_ratio=1.0),
    "deep": dict(depths=(1, 1, 6, 4)),
    "shallow": dict(depths=(1, 1, 4, 2)),
    "wide": dict(dims=(32, 64, 144, 288)),
    "narrow": dict(dims=(24, 48, 128, 256)),
    "stage-3": dict(heads=(0, 0, 1, 4)),
}


def attended(attention: Attention, scores: Tensor, x: Tensor) -> Tensor:
    """The values of a map ``(B, C, g, g)``, weighted: ``(B*H, C/H, N)``."""
    return torch.bmm(attention.split(attention.value(x)), scores.softmax(-1).transpose(1, 2))


class HeadwiseLinear(nn.Module):
    """Theta or Psi with weights of its own for each head: ``(B*H, N, N) -> (B*H, N, N)``."""

    def __init__(self, heads: int, tokens: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(tokens).repeat(heads, 1, 1))
        self.bias = nn.Parameter(torch.zeros(heads, 1, tokens))

    def forward(self, scores: Tensor) -> Tensor:
        batch = len(scores) // len(self.weight)
        weight, bias = (value.repeat(batch, 1, 1) if batch > 1 else value for value in (self.weight, self.bias))
        return torch.bmm(scores, weight.transpose(1, 2)) + bias


class Reduced(nn.Module):
    """Attention whose keys and values come from a map of half the side, as PVT's: scores ``(B*H, N, N/4)``.

    Theta then mixes N/4 keys, Psi N queries.
    """

    def __init__(self, attention: Attention, tokens: int) -> None:
        super().__init__()
        self.attention = attention
        if isinstance(attention, LessAttention):
            attention.theta = nn.Linear(tokens // 4, tokens // 4)
            nn.init.eye_(attention.theta.weight)

    def forward(self, x: Tensor, carried: Tensor | None) -> tuple[Tensor, Tensor]:
        a, small = self.attention, F.avg_pool2d(x, 2)
        if isinstance(a, VanillaAttention):
            query = a.split(a.query(x)).transpose(1, 2)
            query = query if a.scale == 1.0 else query * a.scale
            scores = torch.bmm(query, a.split(a.key(small)))
        else:
            scores = a.scores(x, carried)
        return a.project(attended(a, scores, small).reshape(len(x), -1, *x.shape[2:])), scores


class Partial(nn.Module):
    """Attention on the first quarter of the channels, as SHViT's; the projection mixes all of them."""

    def __init__(self, attention: Attention, dim: int) -> None:
        super().__init__()
        self.part = dim // 4
        self.attention = attention
        for name in ("query", "key", "value"):
            if old := getattr(attention, name, None):
                width = self.part if name == "value" else old.conv.out_channels
                setattr(attention, name, ConvNorm(self.part, width).apply(initialise))
        attention.project = ConvNorm(dim, dim, gain=0.3).apply(initialise)

    def forward(self, x: Tensor, carried: Tensor | None) -> tuple[Tensor, Tensor]:
        a, part = self.attention, x[:, : self.part]
        scores = a.scores(part, carried)
        return a.project(torch.cat([attended(a, scores, part).reshape(part.shape), x[:, self.part :]], 1)), scores


class SqueezeExcite(nn.Module):
    """A depthwise convolution, then a factor for each channel out of their means (Hu et al., 2018)."""

    def __init__(self, mixer: nn.Module, dim: int) -> None:
        super().__init__()
        self.mixer = mixer
        self.squeeze, self.excite = nn.Conv2d(dim, dim // 4, 1), nn.Conv2d(dim // 4, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixer(x)
        return x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


def pooled(scores: Tensor, side: int) -> Tensor:
    """``(B, N, N)`` of a square map -> ``(B, N/4, N/4)``: the mean of each four neighbouring queries and keys."""
    for _ in range(2):  # along what lies last, which then comes first
        rows = scores.shape[1]
        scores = F.avg_pool2d(scores.reshape(-1, 1, side, side), 2).reshape(-1, rows, side**2 // 4).transpose(1, 2)
    return scores


class ResidualAttention(VanillaAttention):
    """Vanilla attention to whose scores those of the stage before are added, pooled over queries and keys: LaViT's attention
    residual, where one head arrives and each of ours takes a multiple of it."""

    def __init__(self, dim: int, heads: int, value_dim: int, key_dim: int, side: int) -> None:
        super().__init__(dim, heads, value_dim, key_dim)
        self.side = side
        self.gain = nn.Parameter(torch.ones(heads, 1, 1))
        self.add = Add()

    def scores(self, x: Tensor, carried: Tensor | None) -> Tensor:
        assert carried is not None
        tokens = self.side**2
        arrived = pooled(carried, 2 * self.side).reshape(len(x), 1, tokens, tokens) * self.gain
        return self.add(super().scores(x, None), arrived.reshape(-1, tokens, tokens))


class Carrying(LaViTMobile):
    """Hands the last scores of a stage to the next."""

    def features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        carried: Tensor | None = None
        less = []
        stages: Any = self.stages
        for stage in stages:
            x = stage.embedding(x)
            for block in stage.blocks:
                x, carried = block(x, carried)
                if isinstance(block.attention, LessAttention):
                    less.append(carried)
        return self.norm(x.mean((2, 3), keepdim=True).flatten(1)), less


# What changes a model is told how many tokens its last stage has.


def activation(model: Any, tokens: int, kind: type[nn.Module]) -> None:
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, kind())


def squeeze_excite(model: Any, tokens: int) -> None:
    for stage in model.stages:
        for block in stage.blocks[::2]:
            block.mixer = SqueezeExcite(block.mixer, block.mixer.conv.out_channels)


def headwise(model: Any, tokens: int) -> None:
    for block in model.stages[3].blocks[1:]:
        block.attention.theta, block.attention.psi = (HeadwiseLinear(block.attention.heads, tokens) for _ in range(2))


def partial_channels(model: Any, tokens: int) -> None:
    for block in model.stages[3].blocks:
        block.attention = Partial(block.attention, block.mixer.conv.out_channels)


def reduced_keys(model: Any, tokens: int) -> None:
    for block in model.stages[2].blocks:
        block.attention = Reduced(block.attention, 4 * tokens)


def attention_residual(model: Any, tokens: int) -> None:
    first = model.stages[3].blocks[0]
    dim, old = first.mixer.conv.out_channels, first.attention
    value_dim, key_dim = old.value.conv.out_channels, old.query.conv.out_channels // old.heads
    first.attention = ResidualAttention(dim, old.heads, value_dim, key_dim, math.isqrt(tokens)).apply(initialise)
    model.__class__ = Carrying


CHANGES: dict[str, tuple[Change, dict[str, Any]]] = {
    "hardswish": (functools.partial(activation, kind=nn.Hardswish), {}),
    "gelu": (functools.partial(activation, kind=nn.GELU), {}),
    "squeeze-excite": (squeeze_excite, {}),
    "theta-per-head": (headwise, {}),
    "partial": (partial_channels, dict(heads=(0, 0, 0, 1))),
    "stage-3-reduced": (reduced_keys, dict(heads=(0, 0, 1, 4))),
    "attention-residual": (attention_residual, dict(heads=(0, 0, 1, 4))),
}


def changed(change: Change, of: dict[str, Any], *, image_size: int, **options: Any) -> Classifier:
    model = create_model(OF, image_size=image_size, **of, **options)
    change(model, (image_size // 32) ** 2)
    return model


BUILDERS: dict[str, Callable[..., Classifier]] = {
    **{f"{OF}-{name}": functools.partial(create_model, OF, **options) for name, options in OPTIONS.items()},
    **{f"{OF}-{name}": functools.partial(changed, change, options) for name, (change, options) in CHANGES.items()},
}
