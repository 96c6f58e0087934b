"""PVT, the pyramid vision transformer (Wang et al., 2021): the baseline for LaViT, LIT and LSLA.

It is LaViT with vanilla attention in every layer and no attention residual, so it is built from that. PVT's class token in stage
4 is left out for the mean over tokens, as in LaViT; that is less than 0.01 M parameters.
"""

from __future__ import annotations

from typing import Any

from lavit_edge.models.lavit import LaViT
from lavit_edge.models.registry import register

_PAPER: dict[str, Any] = dict(dims=(64, 128, 320, 512), heads=(1, 2, 5, 8), mlp_ratios=(8, 8, 4, 4), sr_ratios=(8, 4, 2, 1))


def _pvt(variant: dict[str, Any], options: dict[str, Any]) -> LaViT:
    numbers = {**variant, **options}
    stages = len(numbers["dims"])
    return LaViT(**numbers, num_vanilla=numbers["depths"], attention_residual=(False,) * stages)


@register
def pvt_tiny(**options: Any) -> LaViT:
    return _pvt(dict(_PAPER, depths=(2, 2, 2, 2)), options)


@register
def pvt_small(**options: Any) -> LaViT:
    return _pvt(dict(_PAPER, depths=(3, 4, 6, 3)), options)


@register
def pvt_medium(**options: Any) -> LaViT:
    return _pvt(dict(_PAPER, depths=(3, 4, 18, 3)), options)


@register
def pvt_nano(**options: Any) -> LaViT:
    """Ours: ``lit_nano``'s widths but for stage 4, which is narrower so that it keeps to 4 M parameters."""
    variant: dict[str, Any] = dict(dims=(32, 64, 160, 192), heads=(1, 2, 5, 6), depths=(2, 2, 4, 2), mlp_ratios=(4, 4, 4, 4))
    return _pvt({**variant, "sr_ratios": (8, 4, 2, 1), "convolutional": True}, options)
