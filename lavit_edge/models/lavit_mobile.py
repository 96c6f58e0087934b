"""A LaViT made for the int8 kernels of phones.

The paper's mechanism (Zhang et al., CVPR 2024, arXiv 2406.00427) in the stage where it costs least, and around it what runs fast:

    picture -> [embedding -> blocks] x 4 -> mean over the map -> batch norm -> linear
    block:  x -> depthwise -> x + attention(x) -> x + ffn(x)

The paper's: vanilla attention, then less attention, whose scores are those of the layer before through Theta and Psi. Ours is
the rest (docs/architectures.md has what was measured for each choice):

- The paper's diagonality-preserving loss is off (``diagonality``): with it every place attended to itself alone.
- Batch norms fold into the layers before them (LeViT, Graham et al., 2021). A layer norm runs outside ExecuTorch's delegate; with
  33 of them, entering and leaving it, ``lavit_nano`` spent a third of its time there.
- Queries, keys, values and the FFN are 1x1 convolutions on the map, so that tokens are laid out anew for attention alone.
- A re-parameterised depthwise convolution mixes neighbours at the block's width (RepViT, Wang et al., 2024), not at the FFN's.
- Attention in the last stage alone (as LIT, Pan et al., 2022). With N tokens Theta and Psi take 2 H N^3 multiply-adds where
  queries and keys take 2 N C H d: at 160 pixels N is 25, and less attention is the cheaper of the two. Trained alike, the same
  time spent on depth did as well (docs/peers.md).
- Additions are modules: int8 kernels want a range for each (docs/int8.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lavit_edge.models.blocks import Add, DropPath
from lavit_edge.models.classifier import Classifier, check_stages, drop_rates, over_token_map
from lavit_edge.models.lavit import diagonality_loss
from lavit_edge.models.registry import register


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm.

    Args:
        gain: first weight of the batch norm; 0 starts a residual branch as nothing (Goyal et al., 2017).
    """

    def __init__(self, in_dim: int, dim: int, kernel: int = 1, stride: int = 1, groups: int = 1, gain: float = 1.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_dim, dim, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(dim)
        self.gain = gain

    def start(self) -> None:
        nn.init.constant_(self.norm.weight, self.gain)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def fold(self) -> None:
        assert isinstance(self.norm, nn.BatchNorm2d)
        self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


class RepDepthwise(ConvNorm):
    """Depthwise 3x3 + depthwise 1x1 + identity, then one batch norm.

    All three are linear in the map, so they are added as kernels: one convolution in training too, where three and their sum are
    bound by memory.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, 3, groups=dim)
        self.point = nn.Parameter(torch.zeros(dim))

    def kernel(self) -> Tensor:
        """``(C, 1, 3, 3)``, of the three together."""
        return self.conv.weight + F.pad((self.point + 1).reshape(-1, 1, 1, 1), (1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.norm, nn.Identity):
            return self.conv(x)
        return self.norm(F.conv2d(x, self.kernel(), padding=1, groups=len(self.point)))

    def fold(self) -> None:
        self.conv.weight.data = self.kernel().detach()
        del self.point
        super().fold()


class FeedForward(nn.Module):
    """1x1 convolution to ``hidden`` channels, ReLU, 1x1 convolution back."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.expand = ConvNorm(dim, hidden)
        self.act = nn.ReLU()
        self.contract = ConvNorm(hidden, dim, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(self.act(self.expand(x)))


class Attention(nn.Module):
    """What vanilla and less attention share: values and the output projection, on a map.

    Scores are 3-D, ``(B*H, N, N)`` (``models/blocks.py`` says why). ``(B, C, g, g)`` and the scores of the layer before, if any,
    give ``(B, C, g, g)`` and this layer's scores, before the softmax.
    """

    def __init__(self, dim: int, heads: int, value_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.value = ConvNorm(dim, value_dim)
        # from 0, as the FFN's, it stayed at 0.007 where theirs grew to 0.3, and attention was a constant (docs/architectures.md)
        self.project = ConvNorm(value_dim, dim, gain=0.3)

    def scores(self, x: Tensor, carried: Tensor | None) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, carried: Tensor | None) -> tuple[Tensor, Tensor]:
        scores = self.scores(x, carried)
        attended = torch.bmm(self.split(self.value(x)), scores.softmax(-1).transpose(1, 2))
        return self.project(attended.reshape(len(x), -1, *x.shape[2:])), scores

    def split(self, x: Tensor) -> Tensor:
        """``(B, C, g, g)`` -> ``(B*H, C/H, N)``."""
        return x.reshape(len(x) * self.heads, -1, x.shape[2] * x.shape[3])


class VanillaAttention(Attention):
    """Softmax attention; the paper's VA layer. It begins a stage or follows another: scores that arrive are left.

    Args:
        key_dim: of queries and keys, per head.
    """

    def __init__(self, dim: int, heads: int, value_dim: int, key_dim: int) -> None:
        super().__init__(dim, heads, value_dim)
        self.query = ConvNorm(dim, heads * key_dim)
        self.key = ConvNorm(dim, heads * key_dim)
        self.scale = key_dim**-0.5

    def scores(self, x: Tensor, carried: Tensor | None) -> Tensor:
        query = self.split(self.query(x)).transpose(1, 2)
        if self.scale != 1.0:
            query = query * self.scale
        return torch.bmm(query, self.split(self.key(x)))

    def fold(self) -> None:
        """``1/sqrt(d)`` into the batch norm of the queries, which is folded after it."""
        assert isinstance(self.query.norm, nn.BatchNorm2d)
        self.query.norm.weight.data *= self.scale
        self.query.norm.bias.data *= self.scale
        self.scale = 1.0


class LessAttention(Attention):
    """The paper's LA layer, ``A^l = Psi(Theta(A^(l-1))^T)^T``: no queries, no keys.

    Theta mixes along the keys, Psi along the queries; one pair per layer, shared by all heads, starting as the identity.
    """

    def __init__(self, dim: int, heads: int, value_dim: int, tokens: int) -> None:
        super().__init__(dim, heads, value_dim)
        self.theta = nn.Linear(tokens, tokens)
        self.psi = nn.Linear(tokens, tokens)

    def start(self) -> None:
        nn.init.eye_(self.theta.weight)
        nn.init.eye_(self.psi.weight)

    def scores(self, x: Tensor, carried: Tensor | None) -> Tensor:
        assert carried is not None, "a less-attention layer needs the scores of the layer before it"
        return self.psi(self.theta(carried).transpose(1, 2)).transpose(1, 2)


class Block(nn.Module):
    """Depthwise convolution, attention where there is one, FFN; the last two are residual branches."""

    def __init__(self, attention: Attention | None, dim: int, ratio: int, drop_path: float) -> None:
        super().__init__()
        self.mixer = RepDepthwise(dim)
        self.attention = attention
        if attention is not None:
            self.add_attention = Add()
        self.ffn = FeedForward(dim, dim * ratio)
        self.add_ffn = Add()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, carried: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x = self.mixer(x)
        if self.attention is not None:
            attended, carried = self.attention(x, carried)
            x = self.add_attention(x, self.drop_path(attended))
        return self.add_ffn(x, self.drop_path(self.ffn(x))), carried


class Downsample(nn.Module):
    """Depthwise 3x3 of stride 2, 1x1 convolution, and an FFN as residual branch (RepViT)."""

    def __init__(self, in_dim: int, dim: int, ratio: int) -> None:
        super().__init__()
        self.spatial = ConvNorm(in_dim, in_dim, 3, 2, groups=in_dim)
        self.channels = ConvNorm(in_dim, dim)
        self.ffn = FeedForward(dim, dim * ratio)
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.device.type == "cpu":
            # oneDNN's bf16 gradient of a strided depthwise convolution: 28 ms for (64, 128, 8, 8), 0.6 ms in fp32
            with torch.autocast("cpu", enabled=False):
                x = self.spatial(x.to(self.spatial.conv.weight.dtype))
        else:
            x = self.spatial(x)
        x = self.channels(x)
        return self.add(x, self.ffn(x))


class Stage(nn.Module):
    """An embedding, then blocks: the first ``num_vanilla`` of those with attention compute scores, the later ones re-use them."""

    def __init__(self, embedding: nn.Module, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.embedding = embedding
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The map, and the scores of the less-attention layers."""
        x, carried, less = self.embedding(x), None, []
        for block in self.blocks:
            x, carried = block(x, carried)
            if isinstance(block.attention, LessAttention):
                less.append(carried)
        return x, less


class LaViTMobile(Classifier):
    """Four stages, mean over the map, batch norm, linear head.

    Args:
        dims, depths: a number per stage.
        heads: per stage; 0 for a stage without attention.
        num_vanilla: vanilla-attention layers at the start of each stage (the paper's ``L^VA``); less attention follows.
        ratio: hidden channels of each FFN over its width.
        key_dim: of queries and keys, per head.
        value_ratio: channels of all values over the width.
        drop_path: stochastic depth of the last block; rises linearly from 0.
        diagonality: share of the recipe's weight of the diagonality-preserving loss; 1 is the paper's model.
    """

    float_layers = ("head", "stages.0.embedding.0.*")
    undecayed = (*Classifier.undecayed, ".theta.", ".psi.")  # decay would pull them away from the identity
    learning_rates = {".theta.": 0.1, ".psi.": 0.1}  # noqa: RUF012  (at the full rate they level the maps: docs/architectures.md)

    def __init__(
        self,
        *,
        dims: Sequence[int],
        depths: Sequence[int],
        heads: Sequence[int] = (0, 0, 0, 4),
        num_vanilla: Sequence[int] = (1, 1, 1, 1),
        ratio: int = 2,
        key_dim: int = 16,
        value_ratio: float = 0.5,
        num_classes: int = 1000,
        image_size: int = 224,
        drop_path: float = 0.0,
        diagonality: float = 0.0,
    ) -> None:
        check_stages(drop_path, dims=dims, depths=depths, heads=[count or 1 for count in heads], num_vanilla=num_vanilla)
        if min(ratio, key_dim) < 1:
            raise ValueError(f"ratio and key_dim must be at least 1, not {ratio} and {key_dim}")
        stages = []
        for m, rates in enumerate(drop_rates(depths, drop_path)):
            tokens, value_dim = (image_size // 2 ** (m + 2)) ** 2, int(dims[m] * value_ratio)
            if heads[m] and (value_dim < 1 or value_dim % heads[m]):
                raise ValueError(f"value_ratio {value_ratio} gives {value_dim} channels, no multiple of {heads[m]} heads")
            blocks = []
            for layer, rate in enumerate(rates):
                attention: Attention | None = None
                if heads[m] and layer < num_vanilla[m]:
                    attention = VanillaAttention(dims[m], heads[m], value_dim, key_dim)
                elif heads[m]:
                    attention = LessAttention(dims[m], heads[m], value_dim, tokens)
                blocks.append(Block(attention, dims[m], ratio, rate))
            stages.append(Stage(Downsample(dims[m - 1], dims[m], ratio) if m else stem(dims[0]), blocks))
        super().__init__(stages, dims[-1], num_classes)
        self.norm = nn.BatchNorm1d(dims[-1])
        self.diagonality = diagonality

    def features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Pooled features ``(B, C_4)`` and the scores ``(B*H, N, N)`` of every less-attention layer."""
        less = []
        for stage in self.stages:
            x, maps = stage(x)
            less += maps
        # with two dimensions left and kept it is a pooling that ExecuTorch's delegate takes
        return self.norm(x.mean((2, 3), keepdim=True).flatten(1)), less

    def auxiliary_loss(self, maps: Sequence[Tensor]) -> Tensor:
        return self.diagonality * diagonality_loss(maps) if self.diagonality else super().auxiliary_loss(maps)

    def resized(self, fresh: dict[str, Tensor]) -> dict[str, Tensor]:
        state = self.state_dict()
        for name, value in state.items():
            if ".theta." in name or ".psi." in name:
                state[name] = over_token_map(value, *(math.isqrt(len(weights)) for weights in (value, fresh[name])))
        return state

    def fold(self) -> None:
        """The last batch norm into the head."""
        norm = self.norm
        assert isinstance(norm, nn.BatchNorm1d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        self.head.bias.data += self.head.weight @ (norm.bias - norm.running_mean * scale)
        self.head.weight.data *= scale
        self.norm = nn.Identity()


def stem(dim: int) -> nn.Sequential:
    """Two 3x3 convolutions of stride 2."""
    return nn.Sequential(ConvNorm(3, dim // 2, 3, 2), nn.ReLU(), ConvNorm(dim // 2, dim, 3, 2))


@register
def lavit_mobile_s(**options: Any) -> LaViTMobile:
    return LaViTMobile(**{**dict(dims=(32, 64, 128, 256), depths=(1, 1, 5, 3)), **options})


@register
def lavit_mobile_m(**options: Any) -> LaViTMobile:
    return LaViTMobile(**{**dict(dims=(32, 64, 160, 320), depths=(1, 2, 6, 3)), **options})
