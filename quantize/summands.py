"""Steps of summands, kept comparable: what the finer one could say beyond that is lost in the sum.

coremltools rewrites an int8 addition in units of one summand's step, in fp16. A branch whose last batch norm starts at zero has
next to no range: in a RepViT of random weights the ratio of the steps was 1,300, the other summand became more than the 65,504
that fp16 holds, and the ``.mlpackage``'s logits were noise. XNNPACK takes no ratio to the sum's step below 2^-10.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lavit_edge.quantize.scheme import QuantizedAdd, QuantizedLayer

MOST = (
    64.0  # of the coarser step over the finer: 255 codes stay a quarter of fp16's range, and the sum is off by a 64th of a step
)


@torch.no_grad()
def level_summands(model: nn.Module, picture: Tensor) -> list[str]:
    """Grows, in place, the steps of layers whose output is added to one that is more than :data:`MOST` coarser.

    Args:
        model: as ``calibrate`` made it, in evaluation mode.
        picture: ``(1, 3, size, size)`` float32 RGB in 0..255.

    Returns:
        The module paths of those whose step grew.
    """
    made: list[tuple[Tensor, str, Any]] = []  # outputs, kept so that no other takes their identity
    grown: list[str] = []
    layers = dict(model.named_modules())

    def same(output: Tensor, summand: Tensor) -> bool:
        """Reshaped and transposed it is still in the same place."""
        return output.untyped_storage().data_ptr() == summand.untyped_storage().data_ptr()

    def note(path: str, quantizer: Any) -> Any:
        return lambda module, inputs, output: made.append((output, path, quantizer))

    def level(module: nn.Module, summands: tuple[Tensor, ...]) -> None:
        sources = [next(((path, q) for output, path, q in reversed(made) if same(output, summand)), None) for summand in summands]
        if None in sources:  # a value that is not int8
            return
        (coarse, _), (fine, (path, quantizer)) = sorted(
            ((float(source[1].get_parameters_for_torch_fq()[2]), source) for source in sources if source),
            key=lambda pair: -pair[0],
        )
        if coarse > MOST * fine and isinstance(layers[path], QuantizedLayer):  # a sum stays: layers read it, too
            quantizer.input_low.mul_(coarse / MOST / fine)
            quantizer.input_range.mul_(coarse / MOST / fine)
            grown.append(path)

    hooks = []
    for path, module in layers.items():
        if isinstance(module, QuantizedLayer | QuantizedAdd):
            hooks.append(module.register_forward_hook(note(path, module.quantize_output)))
        if isinstance(module, QuantizedAdd):
            hooks.append(module.register_forward_pre_hook(level))
    model(picture)
    for hook in hooks:
        hook.remove()
    return grown
