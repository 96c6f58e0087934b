"""LaViT, the Less-Attention Vision Transformer (Zhang et al., CVPR 2024, arXiv 2406.00427).

No public code exists. The layouts below are reconstructions that match the published parameter and multiply-add counts
(docs/architectures.md has the table); what the paper leaves open is an option here and is said so beside it.

    picture -> [patch embedding -> + position embedding -> blocks] x 4 -> LayerNorm -> mean over tokens -> linear

Stage m has ``N_m`` query tokens and, by spatial reduction with ratio ``R_m`` (as in PVT), ``M_m = N_m / R_m^2`` key tokens.
The first ``num_vanilla`` blocks of a stage compute scores ``Q K^T / sqrt(d)`` (vanilla attention); the later ones re-use
the scores of the block before them through two linear maps, ``A^l = Psi(Theta(A^(l-1))^T)^T`` (less attention).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lavit_edge.models.blocks import (
    Attention,
    Block,
    ConvFeedForward,
    ConvPatchEmbedding,
    FeedForward,
    PatchEmbedding,
    Values,
    to_map,
    to_tokens,
)
from lavit_edge.models.classifier import Classifier, check_stages, drop_rates, over_grid, over_token_map, shape_of
from lavit_edge.models.registry import register


class Scores(NamedTuple):
    """What a block hands on: scores before the softmax, ``(B*H, N, M)``, and the factors whose product they are, if nothing else
    was added to it: ``(B*H, d, N)`` and ``(B*H, d, M)``.
    """

    scores: Tensor
    query: Tensor | None = None
    key: Tensor | None = None


class VanillaAttention(Attention):
    """Softmax attention whose scores are kept for the layers after it (paper, VA layer).

    Args:
        adds: scores that arrive are added before the softmax (the attention residual); else they are left.
    """

    def __init__(self, dim: int, heads: int, grid: int, sr_ratio: int, adds: bool) -> None:
        super().__init__(dim, heads, grid, sr_ratio)
        self.adds = adds

    def forward(self, x: Tensor, carried: Scores | None) -> tuple[Tensor, Scores]:  # type: ignore[override]
        keys = self.key_tokens(x)
        query, key = self.factors(x, keys)
        scores = Scores(torch.bmm(query, key), query.transpose(1, 2), key)
        if carried is not None and self.adds:
            scores = Scores(scores.scores + carried.scores)
        return self.attend(scores.scores, keys), scores


class LessAttention(Values):
    """Attention without queries and keys: ``A^l = Psi(Theta(A^(l-1))^T)^T`` (paper, LA layer).

    Theta mixes along the keys, Psi along the queries; one pair per layer, shared by all heads, starting as the identity,
    so that an untrained layer re-uses the scores as they are. The carried scores are those before the softmax.

    Where ``A = Q K^T``, this is ``(W_psi Q) (W_theta K)^T`` and a constant that the biases make: the factored form, which
    takes ``N^2 d`` multiply-adds for each of the maps instead of ``N^3``. It is exact.
    """

    constant: Tensor | None

    def __init__(self, dim: int, heads: int, grid: int, sr_ratio: int) -> None:
        super().__init__(dim, heads, grid, sr_ratio)
        self.theta = nn.Linear((grid // sr_ratio) ** 2, (grid // sr_ratio) ** 2)
        self.psi = nn.Linear(grid**2, grid**2)
        self.register_buffer("constant", None, persistent=False)

    def start(self) -> None:
        nn.init.eye_(self.theta.weight)
        nn.init.eye_(self.psi.weight)

    def forward(self, x: Tensor, carried: Scores | None) -> tuple[Tensor, Scores]:
        assert carried is not None, "a less-attention layer needs the scores of the layer before it"
        if self.constant is None:
            scores = Scores(self.psi(self.theta(carried.scores).transpose(1, 2)).transpose(1, 2))
        else:
            query, key = self.psi(carried.query), self.theta(carried.key)
            scores = Scores(torch.bmm(query.transpose(1, 2), key) + self.constant, query, key)
        return self.attend(scores.scores, self.key_tokens(x)), scores

    def factor(self, constant: Tensor | None) -> Tensor:
        """Takes the factored form.

        Args:
            constant: that of the layer before, ``(N, M)``; None if that is vanilla attention.

        Returns:
            ``Psi(Theta(constant)^T)^T``, this layer's.
        """
        psi, theta = self.psi.weight.detach(), self.theta.weight.detach()
        own = psi.sum(1, keepdim=True) * self.theta.bias.detach() + self.psi.bias.detach()[:, None]
        self.constant = own if constant is None else own + psi @ constant @ theta.T
        for layer in (self.theta, self.psi):
            nn.init.zeros_(layer.bias)  # ONNX Runtime has no int8 kernel for a linear map of three axes without one
        return self.constant


class CarryingBlock(Block):
    """A block that hands its scores on."""

    def forward(self, x: Tensor, carried: Scores | None) -> tuple[Tensor, Scores]:  # type: ignore[override]
        assert self.attention is not None
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

    def start(self) -> None:
        for pool in (self.queries, self.key_pool) if self.shrink_keys else (self.queries,):
            nn.init.constant_(pool.weight, 0.25)  # the mean of each 2x2 block
        nn.init.normal_(self.mix.weight, std=self.heads**-0.5 / 2)

    def forward(self, scores: Tensor) -> Tensor:
        # the keys are the channels: in channels-last memory this permutation costs nothing
        scores = to_tokens(self.queries(to_map(scores, self.grid)))
        if self.shrink_keys:
            scores = to_tokens(self.key_pool(to_map(scores.transpose(1, 2), round(self.keys**0.5)))).transpose(1, 2)
        rows, queries, keys = scores.shape
        scores = self.mix(scores.reshape(rows // self.heads, self.heads, queries, keys))
        return scores.reshape(-1, queries, keys)


class Stage(nn.Module):
    """Patch embedding, position embedding, then vanilla blocks followed by less-attention blocks.

    Args:
        factored: the inference form of the less-attention layers is the factored one.
    """

    def __init__(
        self,
        embedding: nn.Module,
        downsample: AttentionDownsample | None,
        blocks: Sequence[Block],
        dim: int,
        grid: int,
        factored: bool,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.position = nn.Parameter(torch.zeros(1, grid**2, dim))
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)
        self.grid, self.factored = grid, factored

    def start(self) -> None:
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, x: Tensor, carried: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        x = self.embedding(x) + self.position
        scores = Scores(self.downsample(carried)) if self.downsample is not None and carried is not None else None
        maps = []
        for block in self.blocks:
            x, scores = block(x, scores)
            maps.append(scores.scores)
        return to_map(x, self.grid), maps

    def fold(self) -> None:
        constant = None
        for block in self.blocks:
            if self.factored and isinstance(less := block.attention, LessAttention):
                constant = less.factor(constant)


class LaViT(Classifier):
    """Up to four stages (the paper's four), LayerNorm, global average pooling (its class token would make N odd), linear head.

    Args:
        dims, heads, depths, mlp_ratios: a number per stage.
        sr_ratios: spatial reduction of keys and values per stage; the published multiply-adds are out of reach without it.
        num_vanilla: vanilla-attention layers at the start of each stage (the paper's ``L^VA``); less attention follows.
        attention_residual: per stage, whether the last scores of the stage before are added to its first layer's scores.
        factored: for inference less attention has the factored form, in stages where the vanilla layer before it adds nothing.
        convolutional: our overlapping stem, merging and FFN instead of the paper's, for ``pvt_nano``.
        drop_path: stochastic depth of the last block; rises linearly from 0.
    """

    undecayed = (*Classifier.undecayed, ".theta.", ".psi.")  # decay would pull them away from the identity

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
        factored: bool = False,
        convolutional: bool = False,
        num_classes: int = 1000,
        image_size: int = 224,
        drop_path: float = 0.0,
    ) -> None:
        check_stages(
            drop_path,
            dims=dims,
            heads=heads,
            depths=depths,
            mlp_ratios=mlp_ratios,
            sr_ratios=sr_ratios,
            num_vanilla=num_vanilla,
        )
        if len(attention_residual) != len(dims) or attention_residual[0]:
            raise ValueError("attention_residual takes a boolean per stage, the first of them false: stage 1 has none before it")
        embed, feed_forward = (ConvPatchEmbedding, ConvFeedForward) if convolutional else (PatchEmbedding, FeedForward)
        keys, stages = 0, []
        for m, rates in enumerate(drop_rates(depths, drop_path)):
            grid, in_dim, patch = shape_of(m, dims, image_size)
            if grid % sr_ratios[m]:
                raise ValueError(f"sr_ratios[{m}]={sr_ratios[m]} does not divide the {grid}x{grid} grid of stage {m + 1}")
            keys, old_keys = (grid // sr_ratios[m]) ** 2, keys
            downsample = None
            if attention_residual[m]:
                downsample = AttentionDownsample(heads[m - 1], heads[m], 2 * grid, old_keys, keys)
            blocks, products = [], False
            for layer, rate in enumerate(rates):
                shape = (dims[m], heads[m], grid, sr_ratios[m])
                attention: Values
                if layer < num_vanilla[m]:
                    attention = VanillaAttention(*shape, adds=layer == 0 and attention_residual[m])
                    products = not attention.adds
                else:
                    attention = LessAttention(*shape)
                ffn = feed_forward(dims[m], dims[m] * mlp_ratios[m], grid)
                blocks.append(CarryingBlock(attention, ffn, dims[m], rate))
            stages.append(Stage(embed(in_dim, dims[m], patch), downsample, blocks, dims[m], grid, factored and products))
        super().__init__(stages, dims[-1], num_classes)
        self.sr_ratios = tuple(sr_ratios)

    def features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Pooled features ``(B, C_4)`` and the scores ``(B*H, N, M)`` of every less-attention layer."""
        carried, less = None, []
        for stage in self.stages:
            assert isinstance(stage, Stage)
            x, maps = stage(x, carried)
            carried = maps[-1]
            less += [m for block, m in zip(stage.blocks, maps, strict=True) if isinstance(block.attention, LessAttention)]
        return self.norm(to_tokens(x)).mean(1), less

    def auxiliary_loss(self, maps: Sequence[Tensor]) -> Tensor:
        return diagonality_loss(maps)

    def resized(self, fresh: dict[str, Tensor]) -> dict[str, Tensor]:
        state = self.state_dict()
        old, new = (4 * math.isqrt(tensors["stages.0.position"].shape[1]) for tensors in (state, fresh))
        return resize_tokens(state, old, new, self.sr_ratios)


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


def resize_tokens(state: dict[str, Tensor], old_size: int, new_size: int, sr_ratios: Sequence[int]) -> dict[str, Tensor]:
    """The weights of a LaViT for ``old_size`` pixels as those for ``new_size``: whatever has an entry per token is interpolated.

    Theta and Psi are interpolated as their difference from the identity, scaled so that the sum over inputs stays the same.
    The result is a starting point for fine-tuning, not an equal model.
    """
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
            resized[name] = over_token_map(value, *(keys if ".theta." in name else queries))
        elif ".downsample.queries." in name:  # one filter per key of the stage before
            resized[name] = over_grid(value, *(2 * grid // sr_ratios[stage - 1] for grid in queries))
        elif ".downsample.key_pool." in name:  # one filter per query of this stage
            resized[name] = over_grid(value, *queries)
    return resized


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
