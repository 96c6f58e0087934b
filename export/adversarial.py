"""Pictures made for a layer: adversarial noise, on which a fault there moves the logits as far as it can.

On a photograph an attention block that adds little moves them less than fp16 does by rounding codes apart. So noise is changed
along the gradient of what the fault does, with momentum (after MI-FGSM: Dong et al., arXiv 1710.06081), through the program that
does not round, since rounding has no gradient. What it does to the rounded program is then measured as of any other picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lavit_edge.contract import InputContract
from lavit_edge.export.replay import Fault, Replay

# A layer of the bundled model that fp16 hides moved logits by 30 to 75 steps after 80 changes, by 50 to 150 after 150. A
# photograph or grey to start from, or Adam, is as good; changes of a constant size gave less.
CHANGES, MOMENTUM = 150, 0.8
FIRST, LAST = 100.0, 1.0  # levels of 255 that a pixel is changed by at most, falling geometrically


def steepest(replay: Replay, size: int, faults: Sequence[Fault]) -> int | None:
    """Which of the faults grows fastest on noise of side ``size``: of its effect, the sum of the gradient's absolute values.

    Its effect itself says nothing: that of the last block was the largest, and grew the least. None where none grows, as in a
    branch that ends in a factor of zero.
    """
    noise = _noise(size).requires_grad_()
    effects = [effect.abs().max() for effect in replay.effects(noise, faults)]
    slopes = [torch.autograd.grad(effect, noise, retain_graph=True)[0].nan_to_num(0, 0, 0).abs().sum() for effect in effects]
    fastest = int(torch.stack(slopes).argmax())
    return fastest if slopes[fastest] > 0 else None


def make_input(replay: Replay, size: int, fault: Fault) -> NDArray[np.uint8]:
    """An input ``(size, size, 3)`` on which a fault moves a logit far; always the same one."""
    pixels = _noise(size)
    velocity = torch.zeros_like(pixels)
    for number in range(CHANGES):
        pixels.requires_grad_()
        (effect,) = replay.effects(pixels, [fault])
        slope = torch.autograd.grad(effect.abs().max(), pixels)[0].nan_to_num(0, 0, 0)
        velocity = MOMENTUM * velocity + (1 - MOMENTUM) * _scaled(slope)
        change = FIRST * (LAST / FIRST) ** (number / CHANGES) * _scaled(velocity).clamp(-1, 1)
        pixels = (pixels.detach() + change).clamp(0, 255)
    made: NDArray[np.uint8] = pixels[0].permute(1, 2, 0).round().byte().numpy()
    return made


def uncropped(picture: NDArray[np.uint8], contract: InputContract) -> NDArray[np.uint8]:
    """The picture of which the contract makes this input ``(size, size, 3)`` without resizing: with what it crops in black."""
    if contract.resize == "squash":
        return picture
    side = max(contract.size, round(contract.size / contract.crop_fraction))
    before = (side - contract.size) // 2
    after = side - contract.size - before
    return np.pad(picture, ((before, after), (before, after), (0, 0)))


def _noise(size: int) -> Tensor:
    return 255 * torch.rand((1, 3, size, size), generator=torch.Generator().manual_seed(0))


def _scaled(value: Tensor) -> Tensor:
    """To an absolute value of 1 on average; zeros stay."""
    return value / value.abs().mean().clamp_min(torch.finfo(value.dtype).tiny)
