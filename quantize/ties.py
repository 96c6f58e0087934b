"""Steps of int8 additions, chosen so that sums seldom lie halfway between two codes.

A sum of two int8 tensors has few distinct values, ``ra * i + rb * j`` steps with whole ``i`` and ``j`` and the ratios of the
summands' steps to the sum's. Where such a ratio is near a simple fraction, many sums lie within a last bit of a tie, which
ExecuTorch and ONNX Runtime round apart: in two additions of a former bundled model 11 and 13 times as many as chance has, on
eight pictures, so that no runtime gave the program's own logits for any picture. Other layers' sums, with scales of their own
for each channel, keep to chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lavit_edge.quantize.scheme import QuantizedAdd

NEAR = 2e-5  # of a step: what fp32 rounds sums of a hundred steps by
MANY = 3.0  # times as many near ties as chance has
GROWTH, MOST = 1.001, 16  # a step grows by a thousandth, at most so often: 1.6 %, and noise by 0.14 dB


@torch.no_grad()
def avoid_ties(model: nn.Module, pictures: Sequence[Tensor]) -> list[str]:
    """Grows, in place, the steps of additions of which more sums than by chance lie on ties. Those of later layers change with
    them, so they are measured anew after each.

    Args:
        model: as ``calibrate`` made it, in evaluation mode.
        pictures: ``(1, 3, size, size)`` float32 RGB in 0..255 each.

    Returns:
        The module paths of the additions whose step grew.
    """
    grown: list[str] = []
    additions = {
        path: module for path, module in model.named_modules() if isinstance(module, QuantizedAdd) and not module.bounded
    }
    settled: set[str] = set()
    while waiting := {path: module for path, module in additions.items() if path not in settled}:
        for path, sums in _sums(model, waiting, pictures).items():
            settled.add(path)
            if _grow(additions[path].quantize_output, sums):
                grown.append(path)
                break
    return grown


def _sums(model: nn.Module, additions: dict[str, QuantizedAdd], pictures: Sequence[Tensor]) -> dict[str, list[Tensor]]:
    """What is rounded behind each addition, float64, in the order in which they are computed."""
    sums: dict[str, list[Tensor]] = {}

    def keep(path: str) -> Callable[[nn.Module, tuple[Tensor, Tensor]], None]:
        return lambda module, summands: sums.setdefault(path, []).append((summands[0] + summands[1]).double())

    hooks = [module.register_forward_pre_hook(keep(path)) for path, module in additions.items()]
    for picture in pictures:
        model(picture)
    for hook in hooks:
        hook.remove()
    return sums


def _grow(quantizer: Any, sums: list[Tensor]) -> bool:
    """Takes the least growth at which ties are no more than chance's, or else that with the fewest; whether it is not none."""
    step = float(quantizer.get_parameters_for_torch_fq()[2])
    factors = [GROWTH**times for times in range(MOST + 1)]
    shares = []
    for factor in factors:
        shares.append(share_near_ties(sums, step * factor))
        if shares[-1] <= MANY * 2 * NEAR:
            break
    factor = factors[min(range(len(shares)), key=shares.__getitem__)]
    quantizer.input_low.mul_(factor)
    quantizer.input_range.mul_(factor)
    return factor > 1


def share_near_ties(sums: Sequence[Tensor], step: float) -> float:
    """The share of distinct sums that are within :data:`NEAR` steps of halfway between two codes; by chance twice that."""
    near = total = 0
    for each in sums:
        codes = (each / step).unique()
        near += int(((codes % 1 - 0.5).abs() < NEAR).sum())
        total += len(codes)
    return near / total
