"""ViT, the plain vision transformer (Dosovitskiy et al., 2021; sizes of DeiT, Touvron et al., 2021), Fibottention's baseline.

picture -> 16x16 patches -> class token, + position embedding -> blocks -> LayerNorm -> class token -> linear
"""

from __future__ import annotations

from typing import Any

from torch import nn

from lavit_edge.models.blocks import Attention, Block, FeedForward, PatchEmbedding, Stage
from lavit_edge.models.classifier import Classifier, check_stages, drop_rates
from lavit_edge.models.registry import register

PATCH = 16


class ViT(Classifier):
    """One stage of blocks at one width.

    Args:
        dim, heads, depth, mlp_ratio: width, attention heads, blocks, and the FFN's width over ``dim``.
        drop_path: stochastic depth of the last block; rises linearly from 0.
    """

    def __init__(
        self,
        *,
        dim: int,
        heads: int,
        depth: int,
        mlp_ratio: int = 4,
        num_classes: int = 1000,
        image_size: int = 224,
        drop_path: float = 0.0,
    ) -> None:
        check_stages(drop_path, dims=(dim,), heads=(heads,), depths=(depth,), mlp_ratios=(mlp_ratio,))
        grid = image_size // PATCH
        blocks = [
            Block(self.attention(layer, dim, heads, grid), FeedForward(dim, dim * mlp_ratio, grid), dim, rate)
            for layer, rate in enumerate(drop_rates((depth,), drop_path)[0])
        ]
        embedding = PatchEmbedding(3, dim, PATCH, norm=False)
        super().__init__([Stage(embedding, blocks, dim, grid, class_token=True)], dim, num_classes)

    def attention(self, layer: int, dim: int, heads: int, grid: int) -> nn.Module:
        """That of block ``layer``, from 0."""
        return Attention(dim, heads, grid)


TINY: dict[str, Any] = dict(dim=192, heads=3, depth=12)
SMALL: dict[str, Any] = dict(dim=384, heads=6, depth=12)
BASE: dict[str, Any] = dict(dim=768, heads=12, depth=12)
NANO: dict[str, Any] = dict(dim=128, heads=4, depth=11)  # ours: as much as fits into 0.6 GMACs


@register
def vit_tiny(**options: Any) -> ViT:
    return ViT(**{**TINY, **options})


@register
def vit_small(**options: Any) -> ViT:
    return ViT(**{**SMALL, **options})


@register
def vit_base(**options: Any) -> ViT:
    return ViT(**{**BASE, **options})


@register
def vit_nano(**options: Any) -> ViT:
    return ViT(**{**NANO, **options})
