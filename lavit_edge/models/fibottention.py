"""Fibottention, sparse attention by Fibonacci sequences (Rahimian et al., arXiv 2406.19391), in a plain ViT.

Written after the description of the authors' algorithm. Each head attends, of all pairs of patches, to those whose distance in
raster order is one of its own few offsets; together the heads' offsets are the first columns of the Wythoff array, so no offset
occurs in two heads. The class token attends to all, and all to it, so that no row of attention is ever empty.
"""

from __future__ import annotations

import math
import random
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lavit_edge.models.blocks import Attention, merge, per_head
from lavit_edge.models.registry import register
from lavit_edge.models.vit import BASE, NANO, SMALL, TINY, ViT

NARROWEST = 5  # window of the first head; that of the last is a third of the tokens
# What is added to the scores of masked pairs. Fits in fp16, and e^-10000 is 0 in any precision.
MASKED = -1e4


def fibonacci_offsets(tokens: int, heads: int) -> list[list[int]]:
    """Each head's offsets in raster order for ``tokens`` patches.

    Head i, from 1, starts at the i-th pair of the Wythoff array and goes on by Fibonacci's rule up to its window, which grows
    linearly from 5 in the first head to a third of the tokens in the last. The first offset is always kept.
    """
    golden, widest = (1 + math.sqrt(5)) / 2, tokens // 3
    patterns = []
    for head in range(1, heads + 1):
        window = NARROWEST + int((widest - NARROWEST) / (heads - 1) * (head - 1)) if heads > 1 else NARROWEST
        first = math.floor(head * golden)
        offsets, last = [math.floor(first * golden)], math.floor(first * golden**2)
        while last <= window:
            offsets.append(last)
            last = offsets[-1] + offsets[-2]
        patterns.append(offsets)
    return patterns


def head_order(layer: int, heads: int, shuffle: bool = True) -> list[int]:
    """Which pattern, from 0, each head of a layer has. The authors': Python's shuffle, seeded with the layer's number from 0."""
    order = list(range(heads))
    if shuffle:
        random.Random(layer).shuffle(order)
    return order


def attention_mask(patterns: list[list[int]], tokens: int) -> Tensor:
    """bool ``(H, 1 + tokens, 1 + tokens)``: which pairs attend; the class token comes first."""
    mask = torch.ones(len(patterns), 1 + tokens, 1 + tokens, dtype=torch.bool)
    position = torch.arange(tokens)
    distance = (position[:, None] - position).abs()
    for head, offsets in enumerate(patterns):
        mask[head, 1:, 1:] = torch.isin(distance, torch.tensor(offsets))
    return mask


class FibonacciAttention(Attention):
    """Softmax attention over the pairs of a mask.

    Args:
        order: which pattern of :func:`fibonacci_offsets` each head has.
        multiplicative: scores of masked pairs become 0 before the softmax, as in the authors' first code, so that they still get
            weight; else they get none.
        shifts: the inference form computes the pairs of the mask alone, by slices and pads; else all pairs, masked. The same
            function.
    """

    mask: Tensor

    def __init__(self, dim: int, heads: int, grid: int, order: list[int], multiplicative: bool, shifts: bool) -> None:
        super().__init__(dim, heads, grid)
        self.order, self.multiplicative, self.shifts, self.folded = order, multiplicative, shifts, False
        self.patterns = fibonacci_offsets(grid**2, heads)
        mask = attention_mask([self.patterns[pattern] for pattern in order], grid**2)
        # the product, or what is added: one of the two forms, in float
        self.register_buffer("mask", mask.float() if multiplicative else (~mask) * MASKED, persistent=False)

    def scores(self, x: Tensor, keys: Tensor) -> Tensor:
        return per_head(torch.mul if self.multiplicative else torch.add, super().scores(x, keys), self.mask)

    def forward(self, x: Tensor) -> Tensor:
        return self.shifted(x) if self.folded and self.shifts else super().forward(x)

    def shifted(self, x: Tensor) -> Tensor:
        """The pairs of the mask alone: each offset is a slice of the keys and values, padded with zeros at both ends."""
        query, key, value = (self.split(layer(x)) for layer in (self.query, self.key, self.value))
        rows, tokens, dim = query.shape
        first = torch.bmm(torch.bmm(query[:, :1], key.transpose(1, 2)).softmax(-1), value)  # the class token attends to all
        q, k, v = (t.reshape(-1, self.heads, tokens, dim) for t in (query, key, value))
        heads = [self.one_head(q[:, head], k[:, head], v[:, head], head) for head in range(self.heads)]
        attended = torch.stack(heads, 1).reshape(rows, tokens - 1, dim)
        return self.project(merge(torch.cat([first, attended], 1), self.heads))

    def one_head(self, query: Tensor, key: Tensor, value: Tensor, head: int) -> Tensor:
        """``(B, 1 + N, d)`` each -> ``(B, N, d)``: what the patches of a head see."""
        tokens, steps = query.shape[1] - 1, self.steps(head)
        query = query[:, 1:]
        reach = max((abs(step) for step in steps), default=0)
        keys, values = (F.pad(t[:, 1:], (0, 0, reach, reach)) for t in (key, value))
        near = [slice(reach + step, reach + step + tokens) for step in steps]
        scores = [(query * keys[:, place]).sum(-1, keepdim=True) for place in near]
        scores.append((query * key[:, :1]).sum(-1, keepdim=True))
        probs = (torch.cat(scores, -1) + self.get_buffer(f"edges{head}")).softmax(-1)
        attended = probs[:, :, len(steps) :] * value[:, :1]
        for index, place in enumerate(near):
            attended = attended + probs[:, :, index : index + 1] * values[:, place]
        return attended

    def steps(self, pattern: int) -> list[int]:
        """A pattern's offsets with both signs, but for those that no pair of patches is apart."""
        return [sign * offset for offset in self.patterns[pattern] if offset < self.grid**2 for sign in (-1, 1)]

    def fold(self) -> None:
        """``1/sqrt(d)`` into the query weights, and the heads in the order of their patterns, which leaves the sum over heads
        as it is, so that all layers have one and the same mask.
        """
        super().fold()
        if self.folded:
            return
        heads = torch.tensor(sorted(range(self.heads), key=self.order.__getitem__))
        rows = torch.arange(len(self.query.weight)).reshape(self.heads, -1)[heads].flatten()
        for layer in (self.query, self.key, self.value):
            layer.weight.data, layer.bias.data = layer.weight.data[rows], layer.bias.data[rows]
        self.project.weight.data = self.project.weight.data[:, rows]
        self.order, self.folded = list(range(self.heads)), True
        if self.shifts:
            place = torch.arange(self.grid**2)
            for head in range(self.heads):  # what lies beyond an end is masked; the class token never is
                ends = [(place + step < 0) | (place + step >= len(place)) for step in self.steps(head)]
                edges = torch.stack([*ends, torch.zeros_like(place, dtype=torch.bool)], -1)
                self.register_buffer(f"edges{head}", edges * MASKED, persistent=False)
            del self.mask
        else:
            self.mask = self.mask[heads]


class Fibottention(ViT):
    """ViT with :class:`FibonacciAttention`.

    Args:
        multiplicative, shifts: as there.
        shuffle: the heads' patterns in another order in each layer.
        options: of :class:`ViT`.
    """

    def __init__(self, *, multiplicative: bool = False, shuffle: bool = True, shifts: bool = False, **options: Any) -> None:
        if multiplicative and shifts:
            raise ValueError("shifts leaves out masked pairs, which have a weight with multiplicative")
        self.form, self.shuffle = dict(multiplicative=multiplicative, shifts=shifts), shuffle
        super().__init__(**options)

    def attention(self, layer: int, dim: int, heads: int, grid: int) -> nn.Module:
        return FibonacciAttention(dim, heads, grid, head_order(layer, heads, self.shuffle), **self.form)

    def deploy(self) -> Self:
        model = super().deploy()
        found = [module for module in model.modules() if isinstance(module, FibonacciAttention)]
        for attention in found:
            for name, _ in found[0].named_buffers():
                setattr(attention, name, getattr(found[0], name))  # one tensor for all layers
        return model


@register
def fibottention_tiny(**options: Any) -> Fibottention:
    return Fibottention(**{**TINY, **options})


@register
def fibottention_small(**options: Any) -> Fibottention:
    return Fibottention(**{**SMALL, **options})


@register
def fibottention_base(**options: Any) -> Fibottention:
    return Fibottention(**{**BASE, **options})


@register
def fibottention_nano(**options: Any) -> Fibottention:
    """Ours: ``vit_nano`` with Fibonacci masks."""
    return Fibottention(**{**NANO, **options})
