"""LaViT, the Less-Attention Vision Transformer (Zhang et al., CVPR 2024, arXiv 2406.00427).

No public code exists. The layouts below are reconstructions that match the published parameter and multiply-add counts
(docs/architectures.md has the table); what the paper leaves open is an option here and is said so beside it.

    picture -> [patch embedding -> + position embedding -> blocks] x 4 -> LayerNorm -> mean over tokens -> linear

Stage m has ``N_m`` query tokens and, by spatial reduction with ratio ``R_m`` (as in PVT), ``M_m = N_m / R_m^2`` key tokens.
The first ``num_vanilla`` blocks of a stage compute scores ``Q K^T / sqrt(d)`` (vanilla attention); the later ones re-use
the scores of the block before them through two linear maps, ``A^l = Psi(Theta(A^(l-1))^T)^T`` (less attention).

Scores stay 3-D, ``(B*H, N, M)``, and products go through ``torch.bmm``: ExecuTorch's XNNPACK delegate computes a 4-D
softmax over the channel axis when it shares a partition with a convolution, and a 4-D ``matmul`` adds copies.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lavit_edge.models.registry import register

DEEPEST = 1000  # blocks a stage; a configuration from elsewhere could ask for a thousand million


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., 2016): drops a residual branch for whole pictures with probability ``rate``."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = torch.empty(x.shape[0], 1, 1, dtype=x.dtype, device=x.device).bernoulli_(1.0 - self.rate)
        return x * keep / (1.0 - self.rate)


def to_map(x: Tensor, grid: int) -> Tensor:
    """``(B, grid^2, C)`` tokens as a ``(B, C, grid, grid)`` map; a view with channels-last strides, so nothing is copied."""
    return x.transpose(1, 2).unflatten(2, (grid, grid))


def to_tokens(x: Tensor) -> Tensor:
    """The inverse of :func:`to_map`."""
    return x.flatten(2).transpose(1, 2)


class Values(nn.Module):
    """What both kinds of attention share: spatial reduction, values, and the output projection."""

    def __init__(self, dim: int, heads: int, grid: int, sr_ratio: int) -> None:
        super().__init__()
        self.heads, self.grid, self.sr_ratio = heads, grid, sr_ratio
        if sr_ratio > 1:
            self.reduce = nn.Conv2d(dim, dim, sr_ratio, sr_ratio)
            self.reduce_norm = nn.LayerNorm(dim)
        self.value = nn.Linear(dim, dim)
        self.project = nn.Linear(dim, dim)

    def split(self, x: Tensor) -> Tensor:
        """``(B, N, C)`` -> ``(B*H, N, C/H)``."""
        batch, tokens, dim = x.shape
        x = x.reshape(batch, tokens, self.heads, dim // self.heads).permute(0, 2, 1, 3)
        return x.reshape(batch * self.heads, tokens, dim // self.heads)

    def merge(self, x: Tensor) -> Tensor:
        """``(B*H, N, C/H)`` -> ``(B, N, C)``."""
        rows, tokens, dim = x.shape
        x = x.reshape(rows // self.heads, self.heads, tokens, dim).permute(0, 2, 1, 3)
        return x.reshape(rows // self.heads, tokens, self.heads * dim)

    def key_tokens(self, x: Tensor) -> Tensor:
        """``(B, N, C)`` -> ``(B, M, C)``, the tokens that keys and values are made from."""
        if self.sr_ratio == 1:
            return x
        return self.reduce_norm(to_tokens(self.reduce(to_map(x, self.grid))))

    def attend(self, scores: Tensor, keys: Tensor) -> Tensor:
        """``softmax(scores) V``, heads merged and projected: ``(B*H, N, M)``, ``(B, M, C)`` -> ``(B, N, C)``."""
        return self.project(self.merge(torch.bmm(scores.softmax(-1), self.split(self.value(keys)))))


class VanillaAttention(Values):
    """Softmax attention whose pre-softmax scores are kept for the layers after it (paper, VA layer).

    The map that arrives from the stage before (``carried``) is added to the scores before the softmax.
    """

    def __init__(self, dim: int, heads: int, grid: int, sr_ratio: int) -> None:
        super().__init__(dim, heads, grid, sr_ratio)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.scale = (dim // heads) ** -0.5

    def forward(self, x: Tensor, carried: Tensor | None) -> tuple[Tensor, Tensor]:
        keys = self.key_tokens(x)
        query = self.split(self.query(x))
        if self.scale != 1.0:
            query = query * self.scale
        scores = torch.bmm(query, self.split(self.key(keys)).transpose(1, 2))
        if carried is not None:
            scores = scores + carried
        return self.attend(scores, keys), scores


class LessAttention(Values):
    """Attention without queries and keys: ``A^l = Psi(Theta(A^(l-1))^T)^T`` (paper, LA layer).

    Theta mixes along the keys, Psi along the queries; one pair per layer, shared by all heads, starting as the identity,
    so that an untrained layer re-uses the scores as they are. The carried scores are those before the softmax.
    """

    def __init__(self, dim: int, heads: int, grid: int, sr_ratio: int) -> None:
        super().__init__(dim, heads, grid, sr_ratio)
        self.theta = nn.Linear((grid // sr_ratio) ** 2, (grid // sr_ratio) ** 2)
        self.psi = nn.Linear(grid**2, grid**2)

    def forward(self, x: Tensor, carried: Tensor | None) -> tuple[Tensor, Tensor]:
        assert carried is not None, "a less-attention layer needs the scores of the layer before it"
        scores = self.psi(self.theta(carried).transpose(1, 2)).transpose(1, 2)
        return self.attend(scores, self.key_tokens(x)), scores


class FeedForward(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, hidden: int, grid: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.contract = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(self.act(self.expand(x)))


class ConvFeedForward(nn.Module):
    """Ours, not the paper's: a 3x3 depthwise convolution between the two linear maps (as in PVTv2), written as 1x1
    convolutions so that a runtime leaves the map layout once per block, at width ``dim`` and not at ``hidden``.
    """

    def __init__(self, dim: int, hidden: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.expand = nn.Conv2d(dim, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = nn.ReLU()
        self.contract = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return to_tokens(self.contract(self.act(self.depthwise(self.expand(to_map(x, self.grid))))))


class Block(nn.Module):
    """Pre-norm block: ``x + attention(norm(x))``, then ``x + ffn(norm(x))``; hands its scores on."""

    def __init__(self, attention: Values, ffn: nn.Module, dim: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = attention
        self.norm2 = nn.LayerNorm(dim)
        self.ffn = ffn
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, carried: Tensor | None) -> tuple[Tensor, Tensor]:
        attended, scores = self.attention(self.norm1(x), carried)
        x = x + self.drop_path(attended)
        return x + self.drop_path(self.ffn(self.norm2(x))), scores


class AttentionDownsample(nn.Module):
    """The attention residual between stages: a depthwise then a 1x1 convolution (paper; kernel sizes are ours).

    ``(B*H, N, M)`` -> ``(B*H', N/4, M')``. The depthwise 2x2 stride-2 convolution runs on the query grid with one filter per
    key, so that "stride" means neighbours in the picture; where the key grid shrinks as well, a second one runs on it.
    The 1x1 convolution maps heads to heads.
    """

    def __init__(self, heads: int, new_heads: int, grid: int, keys: int, new_keys: int) -> None:
        super().__init__()
        self.heads, self.grid, self.keys = heads, grid, keys
        self.queries = nn.Conv2d(keys, keys, 2, 2, groups=keys)
        self.mix = nn.Conv2d(heads, new_heads, 1)
        self.shrink_keys = keys == 4 * new_keys
        if self.shrink_keys:
            new_queries = (grid // 2) ** 2
            self.key_pool = nn.Conv2d(new_queries, new_queries, 2, 2, groups=new_queries)
        elif keys != new_keys:
            raise ValueError(
                f"attention_residual cannot take {keys} keys to {new_keys}; keep sr_ratios halving from stage to stage, "
                "or switch the residual into that stage off"
            )

    def forward(self, scores: Tensor) -> Tensor:
        # the keys are the channels: in channels-last memory this permutation costs nothing
        scores = to_tokens(self.queries(to_map(scores, self.grid)))
        if self.shrink_keys:
            scores = to_tokens(self.key_pool(to_map(scores.transpose(1, 2), round(self.keys**0.5)))).transpose(1, 2)
        rows, queries, keys = scores.shape
        scores = self.mix(scores.reshape(rows // self.heads, self.heads, queries, keys))
        return scores.reshape(-1, queries, keys)


class PatchEmbedding(nn.Module):
    """Non-overlapping ``patch`` x ``patch`` convolution, then LayerNorm."""

    def __init__(self, in_dim: int, dim: int, patch: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_dim, dim, patch, patch)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(to_tokens(self.conv(x)))


class ConvPatchEmbedding(nn.Module):
    """Ours, not the paper's: overlapping 3x3 stride-2 convolutions, two with a batch norm between in the stem, one later."""

    def __init__(self, in_dim: int, dim: int, patch: int) -> None:
        super().__init__()
        self.stem = nn.Sequential()
        if patch == 4:
            self.stem.append(nn.Conv2d(in_dim, dim // 2, 3, 2, padding=1, bias=False))
            self.stem.append(nn.BatchNorm2d(dim // 2))
            self.stem.append(nn.ReLU())
            in_dim = dim // 2
        self.conv = nn.Conv2d(in_dim, dim, 3, 2, padding=1)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(to_tokens(self.conv(self.stem(x))))


class Stage(nn.Module):
    """Patch embedding, position embedding, then vanilla blocks followed by less-attention blocks."""

    def __init__(
        self, embedding: nn.Module, downsample: AttentionDownsample | None, blocks: Sequence[Block], dim: int, grid: int
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.position = nn.Parameter(torch.zeros(1, grid**2, dim))
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)
        self.grid = grid

    def forward(self, x: Tensor, carried: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        x = self.embedding(x) + self.position
        carried = self.downsample(carried) if self.downsample is not None and carried is not None else None
        maps = []
        for block in self.blocks:
            x, carried = block(x, carried)
            maps.append(carried)
        return to_map(x, self.grid), maps


class LaViT(nn.Module):
    """Up to four stages (the paper's four), LayerNorm, global average pooling (its class token would make N odd), linear head.

    Args:
        dims, heads, depths, mlp_ratios: a number per stage.
        sr_ratios: spatial reduction of keys and values per stage; the published multiply-adds are out of reach without it.
        num_vanilla: vanilla-attention layers at the start of each stage (the paper's ``L^VA``); less attention follows.
        attention_residual: per stage, whether the last scores of the stage before are added to its first layer's scores.
        convolutional: our overlapping stem, merging and FFN instead of the paper's (small data sets need them).
        drop_path: stochastic depth of the last block; rises linearly from 0.

    Shapes: ``(B, 3, image_size, image_size)`` normalised RGB -> ``(B, num_classes)``.
    """

    def __init__(
        self,
        *,
        dims: Sequence[int],
        heads: Sequence[int],
        depths: Sequence[int],
        mlp_ratios: Sequence[int],
        sr_ratios: Sequence[int],
        num_vanilla: Sequence[int],
        attention_residual: Sequence[bool] = (False, True, True, True),
        convolutional: bool = False,
        num_classes: int = 1000,
        image_size: int = 224,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        numbers = dict(dims=dims, heads=heads, depths=depths, mlp_ratios=mlp_ratios, sr_ratios=sr_ratios, num_vanilla=num_vanilla)
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
        if len(attention_residual) != len(dims) or attention_residual[0]:
            raise ValueError("attention_residual takes a boolean per stage, the first of them false: stage 1 has none before it")
        embed, feed_forward = (ConvPatchEmbedding, ConvFeedForward) if convolutional else (PatchEmbedding, FeedForward)
        keys = 0
        rates = [drop_path * layer / max(sum(depths) - 1, 1) for layer in range(sum(depths))]
        self.stages = nn.ModuleList()
        for m in range(len(dims)):
            grid, in_dim, patch = (image_size // 4, 3, 4) if m == 0 else (image_size // 2 ** (m + 2), dims[m - 1], 2)
            if grid % sr_ratios[m]:
                raise ValueError(f"sr_ratios[{m}]={sr_ratios[m]} does not divide the {grid}x{grid} grid of stage {m + 1}")
            keys, old_keys = (grid // sr_ratios[m]) ** 2, keys
            downsample = None
            if attention_residual[m]:
                downsample = AttentionDownsample(heads[m - 1], heads[m], 2 * grid, old_keys, keys)
            blocks = []
            for layer in range(depths[m]):
                kind = VanillaAttention if layer < num_vanilla[m] else LessAttention
                attention = kind(dims[m], heads[m], grid, sr_ratios[m])
                ffn = feed_forward(dims[m], dims[m] * mlp_ratios[m], grid)
                blocks.append(Block(attention, ffn, dims[m], rates.pop(0)))
            self.stages.append(Stage(embed(in_dim, dims[m], patch), downsample, blocks, dims[m], grid))
        self.norm = nn.LayerNorm(dims[-1])
        self.head = nn.Linear(dims[-1], num_classes)
        self.apply(_initialise)

    def features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Pooled features ``(B, C_4)`` and the scores ``(B*H, N, M)`` of every less-attention layer."""
        carried, less = None, []
        for stage in self.stages:
            assert isinstance(stage, Stage)
            x, maps = stage(x, carried)
            carried = maps[-1]
            less += [m for block, m in zip(stage.blocks, maps, strict=True) if isinstance(block.attention, LessAttention)]
        return self.norm(to_tokens(x)).mean(1), less

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)[0])

    def deploy(self) -> LaViT:
        """A copy in inference form: batch norms folded into their convolutions, ``1/sqrt(d)`` into the query weights."""
        model = copy.deepcopy(self).eval()
        for module in model.modules():
            if isinstance(module, ConvPatchEmbedding) and len(module.stem) == 3:
                conv, norm, act = module.stem
                assert isinstance(conv, nn.Conv2d)
                assert isinstance(norm, nn.BatchNorm2d)
                module.stem = nn.Sequential(fuse_conv_bn_eval(conv, norm), act)
            elif isinstance(module, VanillaAttention):
                module.query.weight.data *= module.scale
                module.query.bias.data *= module.scale
                module.scale = 1.0
        return model


def _initialise(module: nn.Module) -> None:
    """Truncated normal (0.02) for linear maps, He fan-out for convolutions, identity for Theta and Psi (ours)."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, LessAttention):  # apply() visits children first, so this overrides the linear start
        nn.init.eye_(module.theta.weight)
        nn.init.eye_(module.psi.weight)
    elif isinstance(module, AttentionDownsample):
        for pool in (module.queries, getattr(module, "key_pool", None)):
            if pool is not None:
                nn.init.constant_(pool.weight, 0.25)  # the mean of each 2x2 block
        nn.init.normal_(module.mix.weight, std=module.heads**-0.5 / 2)
    elif isinstance(module, Stage):
        nn.init.trunc_normal_(module.position, std=0.02)


def diagonality_loss(scores: Sequence[Tensor]) -> Tensor:
    """Diagonality-preserving loss over the less-attention maps (paper, with its second sign corrected).

    As printed, the second term rewards an empty diagonal; and on unbounded scores the loss has no minimum. We take it on
    the softmax, normalised by N, with the sign that pulls the diagonal up:

        mean over maps, pictures, heads of (1/M) [ sum_ij |P_ij - P_ji| + sum_i ( sum_(j!=i) P_ij / (M-1) - P_ii ) ]

    Args:
        scores: ``(B*H, N, M)`` each, ``N`` a square multiple of ``M``. Where ``N > M`` the rows of each reduction block are
            averaged first, which gives the ``(M, M)`` map that the formula needs (ours).
    """
    if not scores:
        return torch.zeros(())
    total = scores[0].new_zeros(())
    for score in scores:
        probs = score.float().softmax(-1)
        queries, keys = probs.shape[1:]
        if queries != keys:
            grid, ratio = round(queries**0.5), round((queries // keys) ** 0.5)
            probs = to_tokens(nn.functional.avg_pool2d(to_map(probs, grid), ratio))
        diagonal = probs.diagonal(dim1=1, dim2=2).sum(-1)
        off_diagonal = (probs.sum((1, 2)) - diagonal) / max(keys - 1, 1)
        asymmetry = (probs - probs.transpose(1, 2)).abs().sum((1, 2))
        total = total + ((asymmetry + off_diagonal - diagonal) / keys).mean()
    return total / len(scores)


# The three sizes of the paper, reconstructed; docs/architectures.md has parameters and GMACs beside the published ones.
_PAPER: dict[str, Any] = dict(heads=(1, 2, 5, 8), mlp_ratios=(8, 8, 4, 4), sr_ratios=(8, 4, 2, 1))


@register
def lavit_tiny(**options: Any) -> LaViT:
    variant = dict(_PAPER, dims=(64, 128, 256, 512), heads=(1, 2, 4, 8), depths=(2, 2, 2, 2), num_vanilla=(2, 2, 1, 1))
    return LaViT(**{**variant, **options})


@register
def lavit_small(**options: Any) -> LaViT:
    variant = dict(_PAPER, dims=(64, 128, 320, 512), depths=(2, 4, 6, 3), num_vanilla=(2, 4, 1, 1))
    return LaViT(**{**variant, **options})


@register
def lavit_base(**options: Any) -> LaViT:
    variant = dict(_PAPER, dims=(64, 128, 320, 512), depths=(2, 4, 18, 3), num_vanilla=(2, 4, 1, 1))
    return LaViT(**{**variant, **options})


@register
def lavit_nano(**options: Any) -> LaViT:
    """Ours: phone-sized, with the convolutional parts that a small data set needs."""
    variant: dict[str, Any] = dict(dims=(32, 64, 160, 256), heads=(1, 2, 5, 8), depths=(2, 2, 4, 2), num_vanilla=(2, 2, 1, 1))
    variant |= dict(mlp_ratios=(4, 4, 4, 4), sr_ratios=(8, 4, 2, 1), convolutional=True)
    return LaViT(**{**variant, **options})
