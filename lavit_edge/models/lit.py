"""LIT, "Less is More: Pay Less Attention in Vision Transformers" (Pan et al., AAAI 2022, arXiv 2105.14217).

After the paper and the description of the authors' code. Blocks of the first two stages have no attention at all; those of the
last two are plain transformer blocks over the whole map. Between stages, deformable token merging chooses where it samples.

    picture -> 4x4 patches -> [blocks, deformable merging] x 3 -> blocks -> LayerNorm -> mean over tokens -> linear

LIT-S/M/B add a relative position bias to the scores and have no position embedding. LIT-Ti adds a position embedding in each
stage, and a class token in the last.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lavit_edge.models.blocks import (
    Attention,
    Block,
    ConvFeedForward,
    ConvPatchEmbedding,
    FeedForward,
    PatchEmbedding,
    PositionBias,
    Stage,
    per_head,
    to_tokens,
)
from lavit_edge.models.classifier import Classifier, check_stages, drop_rates, shape_of
from lavit_edge.models.registry import register


class DeformableMerging(nn.Module):
    """Deformable token merging: a deformable 2x2 stride-2 convolution, batch norm, GELU. ``(B, C, 2g, 2g)`` -> ``(B, g^2, C')``.

    Tap ``t = 2 i + j`` of the kernel at ``(y, x)`` samples the map at ``(2 y + i + dy, 2 x + j + dx)``, bilinearly, zero outside;
    ``offset`` gives ``dy`` in its channel ``2 t`` and ``dx`` in ``2 t + 1``, in pixels. Taps of a stride as long as the kernel
    do not share pixels, so each pixel of the map has one tap: the map is sampled anew at its own places, moved by the offsets,
    and then convolved as usual. That is one ``grid_sample`` and one convolution, operators that exporters know.

    Args:
        grid: ``g``, side of the merged map.
        deformable: without, the offsets are zero for good: a plain convolution with the same weights.
    """

    pixels: Tensor

    def __init__(self, in_dim: int, dim: int, grid: int, deformable: bool) -> None:
        super().__init__()
        self.offset = nn.Conv2d(in_dim, 8, 2, 2) if deformable else None
        self.conv = nn.Conv2d(in_dim, dim, 2, 2)
        self.norm: nn.Module = nn.BatchNorm2d(dim)
        self.act = nn.GELU()
        self.size, self.folded = 2 * grid, False
        centres = (2 * torch.arange(self.size) + 1) / self.size - 1  # in grid_sample's units: the map from -1 to 1
        pixels = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1)[None]  # (1, 2g, 2g, 2), x before y
        self.register_buffer("pixels", pixels, persistent=False)

    def start(self) -> None:
        nn.init.kaiming_uniform_(self.conv.weight, a=5**0.5)
        if self.offset is not None:
            nn.init.zeros_(self.offset.weight)

    def sample(self, x: Tensor) -> Tensor:
        """The map, each pixel taken from where its tap points."""
        assert self.offset is not None
        offset = self.offset(x)
        if not self.folded:
            offset = offset[:, [1, 3, 5, 7, 0, 2, 4, 6]] * (2 / self.size)  # dx of the four taps, then dy
        places = self.pixels + F.pixel_shuffle(offset, 2).permute(0, 2, 3, 1)
        return F.grid_sample(x, places, mode="bilinear", padding_mode="zeros", align_corners=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.offset is not None:
            x = self.sample(x)
        return to_tokens(self.act(self.norm(self.conv(x))))

    def fold(self) -> None:
        """The batch norm into the convolution, the order and unit of the offsets into their convolution."""
        if self.folded:
            return
        assert isinstance(self.norm, nn.BatchNorm2d)
        self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()
        if self.offset is not None:
            for parameter in (self.offset.weight, self.offset.bias):
                assert parameter is not None
                parameter.data = parameter.data[[1, 3, 5, 7, 0, 2, 4, 6]] * (2 / self.size)
        self.folded = True


class RelativeAttention(Attention):
    """Softmax attention over the whole map, with a relative position bias on the scores."""

    def __init__(self, dim: int, heads: int, grid: int) -> None:
        super().__init__(dim, heads, grid)
        self.bias = PositionBias(heads, grid)

    def scores(self, x: Tensor, keys: Tensor) -> Tensor:
        return per_head(torch.add, super().scores(x, keys), self.bias())


class LIT(Classifier):
    """LIT: attention in the last stages alone, deformable token merging between them.

    Args:
        dims, heads, depths, mlp_ratios: a number per stage; heads count where there is attention.
        num_mlp: stages at the start without attention (the paper's two).
        relative_position: bias on the scores (S, M, B) instead of position embeddings (Ti).
        class_token: in the last stage, for the head, instead of the mean over tokens (Ti).
        deformable: sample where learned offsets point; without, merging is a 2x2 convolution with the same weights.
        convolutional: our overlapping stem and convolutional FFN instead of the paper's.
        drop_path: stochastic depth of the last block; rises linearly from 0.
    """

    float_layers = (*Classifier.float_layers, "*.offset")  # a step of an int8 offset would move the samples
    learning_rates = {".offset.": 0.01}  # noqa: RUF012  (the authors')

    def __init__(
        self,
        *,
        dims: Sequence[int],
        heads: Sequence[int],
        depths: Sequence[int],
        mlp_ratios: Sequence[int],
        num_mlp: int = 2,
        relative_position: bool = True,
        class_token: bool = False,
        deformable: bool = True,
        convolutional: bool = False,
        num_classes: int = 1000,
        image_size: int = 224,
        drop_path: float = 0.0,
    ) -> None:
        check_stages(drop_path, dims=dims, heads=heads, depths=depths, mlp_ratios=mlp_ratios)
        if class_token and (relative_position or convolutional):
            raise ValueError("class_token has no place on the map that relative_position and convolutional need")
        stages = []
        for m, rates in enumerate(drop_rates(depths, drop_path)):
            grid, in_dim, patch = shape_of(m, dims, image_size)
            embedding: nn.Module
            if m > 0:
                embedding = DeformableMerging(in_dim, dims[m], grid, deformable)
            else:
                embedding = (ConvPatchEmbedding if convolutional else PatchEmbedding)(in_dim, dims[m], patch)
            blocks = []
            for rate in rates:
                attention = (RelativeAttention if relative_position else Attention)(dims[m], heads[m], grid)
                ffn = (ConvFeedForward if convolutional else FeedForward)(dims[m], dims[m] * mlp_ratios[m], grid)
                blocks.append(Block(attention if m >= num_mlp else None, ffn, dims[m], rate))
            last = m == len(dims) - 1
            stages.append(Stage(embedding, blocks, dims[m], grid, not relative_position, class_token and last))
        super().__init__(stages, dims[-1], num_classes)

    def frozen(self) -> Self:
        """A copy whose offsets are zero for good: plain convolutions, which every runtime has, with the weights of this model.

        It is not an equal model unless the offsets are zero already; fine-tune it.
        """
        model = copy.deepcopy(self)
        for module in model.modules():
            if isinstance(module, DeformableMerging):
                module.offset = None
        return model


_SWIN: dict[str, Any] = dict(dims=(96, 192, 384, 768), heads=(3, 6, 12, 24), mlp_ratios=(4, 4, 4, 4))


@register
def lit_tiny(**options: Any) -> LIT:
    variant: dict[str, Any] = dict(dims=(64, 128, 320, 512), heads=(1, 2, 5, 8), depths=(3, 4, 6, 3), mlp_ratios=(8, 8, 4, 4))
    return LIT(**{**variant, "relative_position": False, "class_token": True, **options})


@register
def lit_small(**options: Any) -> LIT:
    return LIT(**{**_SWIN, "depths": (2, 2, 6, 2), **options})


@register
def lit_medium(**options: Any) -> LIT:
    return LIT(**{**_SWIN, "depths": (2, 2, 18, 2), **options})


@register
def lit_base(**options: Any) -> LIT:
    variant = dict(_SWIN, dims=(128, 256, 512, 1024), heads=(4, 8, 16, 32), depths=(2, 2, 18, 2))
    return LIT(**{**variant, **options})


@register
def lit_nano(**options: Any) -> LIT:
    """Ours: a convolutional stem and FFN, LIT's merging; position embeddings, since a table of biases looked up for
    every pair of tokens would be as large as the rest of the int8 model.
    """
    variant: dict[str, Any] = dict(dims=(32, 64, 160, 256), heads=(1, 2, 5, 8), depths=(2, 2, 4, 2), mlp_ratios=(4, 4, 4, 4))
    return LIT(**{**variant, "relative_position": False, "convolutional": True, **options})
