"""ViT-LSLA, a vision transformer with light self-limited attention (Hechen, Huang, Zhao, arXiv 2210.17115).

No public code exists. The abstract gives the mechanism, one size and its results; the layout here is a reconstruction that comes
within 1 % of the published parameters and FLOPs, and what the sources leave open is said so beside it.

    picture -> 4x4 patches -> [blocks, patch merging] x 3 -> blocks -> LayerNorm -> mean over tokens -> linear
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lavit_edge.models.blocks import (
    Block,
    ConvFeedForward,
    ConvPatchEmbedding,
    FeedForward,
    PatchEmbedding,
    PositionBias,
    Stage,
    merge,
    per_head,
    split,
    to_tokens,
)
from lavit_edge.models.classifier import Classifier, check_stages, drop_rates, shape_of
from lavit_edge.models.registry import register


def to_windows(x: Tensor, grid: int, window: int) -> Tensor:
    """``(B, grid^2, C)`` tokens as ``(B * windows, window^2, C)``. One transposition of four axes: Core ML takes up to five."""
    if window == grid:
        return x
    dim = x.shape[2]
    rows = x.reshape(-1, window, grid // window, window * dim)  # each a band of windows
    return rows.transpose(1, 2).reshape(-1, window**2, dim)


def from_windows(x: Tensor, grid: int, window: int) -> Tensor:
    """The inverse of :func:`to_windows`."""
    if window == grid:
        return x
    dim = x.shape[2]
    rows = x.reshape(-1, grid // window, window, window * dim)
    return rows.transpose(1, 2).reshape(-1, grid**2, dim)


def window_of(grid: int, window: int) -> int:
    """The largest window up to ``window`` that tiles a ``grid`` x ``grid`` map.

    Raises:
        ValueError: it would be less than half as long as asked for.
    """
    found = max(side for side in range(1, min(window, grid) + 1) if grid % side == 0)
    if 2 * found < min(window, grid):
        raise ValueError(f"no window of about {window} tiles a {grid}x{grid} map; choose another windows or image_size")
    return found


class LightAttention(nn.Module):
    """Light self-limited attention in windows: ``P = softmax(s (X W_Q) X^T + B_in) + B_out``, ``Z = P X W_O`` per head.

    Keys and values are the block's own (normalised) input ``X``, each head's its share of the channels. ``s`` is a learned number
    per head, ``exp`` of a parameter that starts at ``1/sqrt(d)``; the biases are relative position biases, ``B_out`` starting at
    zero (all three ours: the abstract names them and no more). Rows of ``P`` need not sum to 1.

    Args:
        light, dynamic_scale, inner_bias, outer_bias: without, keys and values have projections of their own, the scale is
            ``1/sqrt(d)``, and there is no such bias.
    """

    def __init__(
        self, dim: int, heads: int, grid: int, window: int, light: bool, dynamic_scale: bool, inner_bias: bool, outer_bias: bool
    ) -> None:
        super().__init__()
        self.heads, self.grid, self.window = heads, grid, window
        self.query = nn.Linear(dim, dim)
        self.key = None if light else nn.Linear(dim, dim)
        self.value = None if light else nn.Linear(dim, dim)
        self.project = nn.Linear(dim, dim)
        scale = torch.full((heads,), (dim // heads) ** -0.5).log()
        self.log_scale = nn.Parameter(scale) if dynamic_scale else None
        self.scale: float | None = None if dynamic_scale else (dim // heads) ** -0.5
        self.inner = PositionBias(heads, window) if inner_bias else None
        self.outer = PositionBias(heads, window, std=0.0) if outer_bias else None

    def scales(self) -> Tensor:
        """``(H,)``."""
        if self.log_scale is not None:
            return self.log_scale.exp()
        assert self.scale is not None
        return torch.full((self.heads,), self.scale, device=self.query.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        x = to_windows(x, self.grid, self.window)
        query, content = split(self.query(x), self.heads), split(x, self.heads)
        if self.scale != 1.0:
            query = (query.unflatten(0, (-1, self.heads)) * self.scales()[:, None, None]).flatten(0, 1)
        keys = content if self.key is None else split(self.key(x), self.heads)
        probs = torch.bmm(query, keys.transpose(1, 2))
        if self.inner is not None:
            probs = per_head(torch.add, probs, self.inner())
        probs = probs.softmax(-1)
        if self.outer is not None:
            probs = per_head(torch.add, probs, self.outer())
        values = content if self.value is None else split(self.value(x), self.heads)
        return from_windows(self.project(merge(torch.bmm(probs, values), self.heads)), self.grid, self.window)

    def fold(self) -> None:
        """The scale of each head into its rows of the query weights."""
        scales = self.scales().detach().repeat_interleave(len(self.query.weight) // self.heads)
        self.query.weight.data *= scales[:, None]
        self.query.bias.data *= scales
        self.log_scale, self.scale = None, 1.0


class PatchMerging(nn.Module):
    """Swin's: the four tokens of each 2x2 block side by side, LayerNorm, linear. ``(B, C, 2g, 2g)`` -> ``(B, g^2, C')``."""

    def __init__(self, in_dim: int, dim: int, patch: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(patch**2 * in_dim)
        self.reduce = nn.Linear(patch**2 * in_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, dim, grid, _ = x.shape
        tokens = to_windows(to_tokens(x), grid, 2) if grid > 2 else to_tokens(x)
        return self.reduce(self.norm(tokens.reshape(batch, grid**2 // 4, 4 * dim)))


class LSLA(Classifier):
    """ViT-LSLA.

    Args:
        dims, heads, depths, mlp_ratios: a number per stage.
        windows: sides of the attention windows per stage, or the largest below that which tiles the map.
        light, dynamic_scale, inner_bias, outer_bias: the parts of :class:`LightAttention`, each on.
        convolutional: our overlapping stem and merging and convolutional FFN instead of Swin's.
        drop_path: stochastic depth of the last block; rises linearly from 0.
    """

    def __init__(
        self,
        *,
        dims: Sequence[int],
        heads: Sequence[int],
        depths: Sequence[int],
        mlp_ratios: Sequence[int],
        windows: Sequence[int],
        light: bool = True,
        dynamic_scale: bool = True,
        inner_bias: bool = True,
        outer_bias: bool = True,
        convolutional: bool = False,
        num_classes: int = 1000,
        image_size: int = 224,
        drop_path: float = 0.0,
    ) -> None:
        check_stages(drop_path, dims=dims, heads=heads, depths=depths, mlp_ratios=mlp_ratios, windows=windows)
        parts = dict(light=light, dynamic_scale=dynamic_scale, inner_bias=inner_bias, outer_bias=outer_bias)
        embed, feed_forward = (ConvPatchEmbedding, ConvFeedForward) if convolutional else (PatchEmbedding, FeedForward)
        stages = []
        for m, rates in enumerate(drop_rates(depths, drop_path)):
            grid, in_dim, patch = shape_of(m, dims, image_size)
            window = window_of(grid, windows[m])
            blocks = [
                Block(
                    LightAttention(dims[m], heads[m], grid, window, **parts),
                    feed_forward(dims[m], dims[m] * mlp_ratios[m], grid),
                    dims[m],
                    rate,
                )
                for rate in rates
            ]
            kind = PatchMerging if m > 0 and not convolutional else embed
            stages.append(Stage(kind(in_dim, dims[m], patch), blocks, dims[m], grid, position=False))
        super().__init__(stages, dims[-1], num_classes)


@register
def lsla_tiny(**options: Any) -> LSLA:
    """The one size of the paper, which gives it no name; layout reconstructed from Swin-T's."""
    variant: dict[str, Any] = dict(dims=(96, 192, 384, 768), heads=(3, 6, 12, 24), depths=(2, 2, 6, 2), mlp_ratios=(3, 3, 3, 3))
    return LSLA(**{**variant, "windows": (14, 14, 14, 7), **options})


@register
def lsla_nano(**options: Any) -> LSLA:
    """Ours: a convolutional stem, merging and FFN; windows of 7, whose biases take a sixteenth of the room of those of
    14. The depthwise convolutions of the FFN reach across windows."""
    variant: dict[str, Any] = dict(dims=(32, 64, 160, 256), heads=(1, 2, 5, 8), depths=(2, 2, 4, 2), mlp_ratios=(4, 4, 4, 4))
    return LSLA(**{**variant, "windows": (7, 7, 7, 7), "convolutional": True, **options})
