"""What the architectures are built from: embeddings, attention, feed-forward parts, residual blocks.

Scores stay 3-D, ``(B*H, N, M)``, and products go through ``torch.bmm``: ExecuTorch's XNNPACK delegate computes a 4-D
softmax over the channel axis when it shares a partition with a convolution, and a 4-D ``matmul`` adds copies.

A part with a method ``fold`` has an inference form that computes the same: ``Classifier.deploy`` calls it once. A part with a
method ``start`` sets its own first weights, after those of the layers inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., 2016): drops a residual branch for whole pictures with probability ``rate``."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = torch.empty(x.shape[0], *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device).bernoulli_(1.0 - self.rate)
        return x * keep / (1.0 - self.rate)


class Add(nn.Module):
    """``x + y`` as a module, for the additions that int8 kernels compute: quantisation gives its output a range."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def to_map(x: Tensor, grid: int) -> Tensor:
    """``(B, grid^2, C)`` tokens as a ``(B, C, grid, grid)`` map; a view with channels-last strides, so nothing is copied."""
    return x.transpose(1, 2).unflatten(2, (grid, grid))


def to_tokens(x: Tensor) -> Tensor:
    """The inverse of :func:`to_map`."""
    return x.flatten(2).transpose(1, 2)


def per_head(operator: Callable[[Tensor, Tensor], Tensor], scores: Tensor, table: Tensor) -> Tensor:
    """``operator`` of ``(B*H, N, M)`` and ``(H, N, M)``, which is the same for each of B.

    Heads and rows are one axis in between: with four axes, in one partition with a convolution, XNNPACK lays the scores out with
    heads last but not the table, and refuses to run.
    """
    if len(scores) == len(table):
        return operator(scores, table)
    rows = table.flatten(0, 1)
    return operator(scores.reshape(-1, *rows.shape), rows).reshape(scores.shape)


class Values(nn.Module):
    """What every kind of attention has: spatial reduction, values, and the output projection."""

    def __init__(self, dim: int, heads: int, grid: int, sr_ratio: int = 1) -> None:
        super().__init__()
        self.heads, self.grid, self.sr_ratio = heads, grid, sr_ratio
        if sr_ratio > 1:
            self.reduce = nn.Conv2d(dim, dim, sr_ratio, sr_ratio)
            self.reduce_norm = nn.LayerNorm(dim)
        self.value = nn.Linear(dim, dim)
        self.project = nn.Linear(dim, dim)

    def split(self, x: Tensor) -> Tensor:
        """``(B, N, C)`` -> ``(B*H, N, C/H)``."""
        return split(x, self.heads)

    def merge(self, x: Tensor) -> Tensor:
        """``(B*H, N, C/H)`` -> ``(B, N, C)``."""
        return merge(x, self.heads)

    def key_tokens(self, x: Tensor) -> Tensor:
        """``(B, N, C)`` -> ``(B, M, C)``, the tokens that keys and values are made from."""
        if self.sr_ratio == 1:
            return x
        return self.reduce_norm(to_tokens(self.reduce(to_map(x, self.grid))))

    def attend(self, scores: Tensor, keys: Tensor) -> Tensor:
        """``softmax(scores) V``, heads merged and projected: ``(B*H, N, M)``, ``(B, M, C)`` -> ``(B, N, C)``."""
        return self.project(self.merge(torch.bmm(scores.softmax(-1), self.split(self.value(keys)))))


def split(x: Tensor, heads: int) -> Tensor:
    """``(B, N, C)`` -> ``(B*H, N, C/H)``."""
    batch, tokens, dim = x.shape
    x = x.reshape(batch, tokens, heads, dim // heads).permute(0, 2, 1, 3)
    return x.reshape(batch * heads, tokens, dim // heads)


def merge(x: Tensor, heads: int) -> Tensor:
    """``(B*H, N, C/H)`` -> ``(B, N, C)``."""
    rows, tokens, dim = x.shape
    x = x.reshape(rows // heads, heads, tokens, dim).permute(0, 2, 1, 3)
    return x.reshape(rows // heads, tokens, heads * dim)


class Attention(Values):
    """Softmax attention, ``softmax(Q K^T / sqrt(d)) V`` (Vaswani et al., 2017), keys and values reduced as in PVT if asked."""

    def __init__(self, dim: int, heads: int, grid: int, sr_ratio: int = 1) -> None:
        super().__init__(dim, heads, grid, sr_ratio)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.scale = (dim // heads) ** -0.5

    def factors(self, x: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """``Q / sqrt(d)``, ``(B*H, N, d)``, of queries from ``x``, and ``K^T``, ``(B*H, d, M)``, of keys from ``keys``."""
        query = self.split(self.query(x))
        if self.scale != 1.0:
            query = query * self.scale
        return query, self.split(self.key(keys)).transpose(1, 2)

    def scores(self, x: Tensor, keys: Tensor) -> Tensor:
        """``Q K^T / sqrt(d)``, ``(B*H, N, M)``."""
        return torch.bmm(*self.factors(x, keys))

    def forward(self, x: Tensor) -> Tensor:
        keys = self.key_tokens(x)
        return self.attend(self.scores(x, keys), keys)

    def fold(self) -> None:
        """``1/sqrt(d)`` into the query weights."""
        self.query.weight.data *= self.scale
        self.query.bias.data *= self.scale
        self.scale = 1.0


class PositionBias(nn.Module):
    """A number for each head and each offset between two tokens of a ``grid`` x ``grid`` map (Swin's relative position bias).

    Its value is ``(H, N, N)``: entry ``[h, i, j]`` is ``position_table[(row_i - row_j + grid - 1) * (2 grid - 1)
    + column_i - column_j + grid - 1, h]``.
    """

    index: Tensor

    def __init__(self, heads: int, grid: int, std: float = 0.02) -> None:
        super().__init__()
        self.std, side = std, 2 * grid - 1
        self.position_table = nn.Parameter(torch.zeros(side**2, heads))
        row, column = torch.arange(grid**2) // grid, torch.arange(grid**2) % grid
        down, right = row[:, None] - row + grid - 1, column[:, None] - column + grid - 1
        self.register_buffer("index", (down * side + right).flatten(), persistent=False)

    def start(self) -> None:
        nn.init.trunc_normal_(self.position_table, std=self.std) if self.std else nn.init.zeros_(self.position_table)

    def forward(self) -> Tensor:
        if self.position_table.ndim == 3:  # folded
            return self.position_table
        tokens, heads = round(len(self.index) ** 0.5), self.position_table.shape[1]
        return self.position_table[self.index].reshape(tokens, tokens, heads).permute(2, 0, 1)

    def fold(self) -> None:
        """Looked up once and for all: exporters would keep the index, and a gather over all pairs of tokens at every run."""
        if self.position_table.ndim == 2:
            self.position_table = nn.Parameter(self.forward().detach().clone())
            del self.index


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
    """Ours, not a paper's, for ``pvt_nano``, ``lit_nano`` and ``lsla_nano``: a 3x3 depthwise convolution between the two linear
    maps (as in PVTv2), written as 1x1 convolutions so that a runtime leaves the map layout once per block, at width ``dim`` and
    not at ``hidden``.
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
    """Pre-norm block: ``x + attention(norm(x))``, then ``x + ffn(norm(x))``; the second alone without an attention."""

    def __init__(self, attention: nn.Module | None, ffn: nn.Module, dim: int, drop_path: float) -> None:
        super().__init__()
        if attention is not None:
            self.norm1 = nn.LayerNorm(dim)
        self.attention = attention
        self.norm2 = nn.LayerNorm(dim)
        self.ffn = ffn
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        if self.attention is not None:
            x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.ffn(self.norm2(x)))


class PatchEmbedding(nn.Module):
    """Non-overlapping ``patch`` x ``patch`` convolution, then LayerNorm unless switched off."""

    def __init__(self, in_dim: int, dim: int, patch: int, norm: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_dim, dim, patch, patch)
        self.norm = nn.LayerNorm(dim) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(to_tokens(self.conv(x)))


class ConvPatchEmbedding(nn.Module):
    """Ours, not a paper's, for the same three: overlapping 3x3 stride-2 convolutions, two with a batch norm
    between in the stem, one later."""

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

    def fold(self) -> None:
        """The batch norm into the convolution before it."""
        if len(self.stem) == 3:
            conv, norm, act = self.stem
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            self.stem = nn.Sequential(fuse_conv_bn_eval(conv, norm), act)


class Stage(nn.Module):
    """An embedding, then position embeddings and, with them, a class token where asked for, then blocks.

    ``(B, C', g', g')`` map of the stage before, or picture -> ``(B, N, C)`` tokens of a ``grid`` x ``grid`` map, the class token
    first if there is one.
    """

    def __init__(
        self, embedding: nn.Module, blocks: Sequence[Block], dim: int, grid: int, position: bool = True, class_token: bool = False
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.has_token = class_token
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim)) if class_token else None
        self.position = nn.Parameter(torch.zeros(1, grid**2 + class_token, dim)) if position else None
        self.blocks = nn.ModuleList(blocks)
        self.grid = grid

    def start(self) -> None:
        for parameter in (self.class_token, self.position):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1)
        elif self.has_token:
            x = nn.functional.pad(x, (0, 0, 1, 0))
        if self.position is not None:
            x = x + self.position
        for block in self.blocks:
            x = block(x)
        return x

    def fold(self) -> None:
        """The class token into the position embedding of a row of zeros: padding is one operator in every runtime."""
        if self.class_token is not None:
            assert self.position is not None
            self.position.data[:, :1] += self.class_token.data
            self.class_token = None


def initialise(module: nn.Module) -> None:
    """Truncated normal (0.02) for linear maps, He fan-out for convolutions, and what a part's own ``start`` says."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif callable(start := getattr(module, "start", None)):
        start()  # apply() visits children first, so this overrides what they were given
