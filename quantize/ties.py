"""Steps of int8 values that are computed from other codes, chosen so that they seldom lie halfway between two codes.

A sum of two int8 tensors has few distinct values, ``ra * i + rb * j`` steps with whole ``i`` and ``j`` and the ratios of the
summands' steps to the sum's. Where such a ratio is near a simple fraction, many sums lie within a last bit of a tie, which
ExecuTorch and ONNX Runtime round apart: in two additions of a former bundled model 11 and 13 times as many as chance has, on
eight pictures, so that no runtime gave the program's own logits for any picture. So it was with a product of codes
in StarNet (20 times). Layers' sums, with scales of their own for each channel, keep to chance, and so do values that are not of
codes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lavit_edge.quantize.scheme import QuantizedAdd, QuantizedLayer

NEAR = 2e-5  # of a step: what fp32 rounds sums of a hundred steps by
MANY = 3.0  # times as many near ties as chance has
CODED = 0.5  # of a tensor's values are distinct at most where they are made of codes
GROWTH, MOST = 1.001, 16  # a step grows by a thousandth, at most so often: 1.6 %, and noise by 0.14 dB


@torch.no_grad()
def avoid_ties(model: nn.Module, pictures: Sequence[Tensor]) -> list[str]:
    """Grows, in place, the steps of values of which more than by chance lie on ties. Those behind change with them, so they are
    measured anew after each.

    Args:
        model: as ``calibrate`` made it, in evaluation mode.
        pictures: ``(1, 3, size, size)`` float32 RGB in 0..255 each.

    Returns:
        The module paths of the additions, and of the layers with an input, whose step grew.
    """
    grown: list[str] = []
    waiting = _rounding(model)
    while waiting:
        for path, values in _rounded(model, waiting, pictures).items():
            if _grow(waiting.pop(path), values):
                grown.append(path)
                break
        else:
            break
    return grown


def _rounding(model: nn.Module) -> dict[str, Any]:
    """Module path -> quantiser, of each addition, and of each layer whose input no other layer or addition has rounded."""
    modules = dict(model.named_modules())
    outputs = {id(module.quantize_output) for module in modules.values() if isinstance(module, QuantizedAdd | QuantizedLayer)}
    found: dict[int, tuple[str, Any]] = {}
    for path, module in modules.items():
        if isinstance(module, QuantizedAdd) and not module.bounded:
            found[id(module.quantize_output)] = path, module.quantize_output
        elif isinstance(module, QuantizedLayer) and id(module.quantize_input) not in outputs:
            found.setdefault(id(module.quantize_input), (path, module.quantize_input))
    return dict(found.values())


def _rounded(model: nn.Module, quantizers: dict[str, Any], pictures: Sequence[Tensor]) -> dict[str, list[Tensor]]:
    """What each is given, distinct values in float64, in the order in which they are computed."""
    values: dict[str, list[Tensor]] = {}

    def keep(path: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        return lambda module, inputs: values.setdefault(path, []).append(_distinct(inputs[0]))

    hooks = [quantizer.register_forward_pre_hook(keep(path)) for path, quantizer in quantizers.items()]
    for picture in pictures:
        model(picture)
    for hook in hooks:
        hook.remove()
    return values


def _distinct(value: Tensor) -> Tensor:
    """Distinct values, or none where nearly all are: those are not made of codes alone."""
    found = value.unique().double()
    return found if len(found) < CODED * value.numel() else found[:0]


def _grow(quantizer: Any, values: list[Tensor]) -> bool:
    """Takes the least growth at which ties are no more than chance's, or else that with the fewest; whether it is not none."""
    step = float(quantizer.get_parameters_for_torch_fq()[2])
    factors = [GROWTH**times for times in range(MOST + 1)]
    shares = []
    for factor in factors:
        shares.append(share_near_ties(values, step * factor))
        if shares[-1] <= MANY * 2 * NEAR:
            break
    factor = factors[min(range(len(shares)), key=shares.__getitem__)]
    quantizer.input_low.mul_(factor)
    quantizer.input_range.mul_(factor)
    return factor > 1


def share_near_ties(values: Sequence[Tensor], step: float) -> float:
    """The share of distinct values that are within :data:`NEAR` steps of halfway between two codes; by chance twice that."""
    near = total = 0
    for each in values:
        codes = (each / step).unique()
        near += int(((codes % 1 - 0.5).abs() < NEAR).sum())
        total += len(codes)
    return near / max(total, 1)
