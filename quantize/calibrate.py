"""Post-training quantisation: ranges are measured, layers get NNCF's learnable quantisers, and the int8 form is read off them.

NNCF's internals are used in one place, here; the package pins its version.
"""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lavit_edge.errors import UserError
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.graph import LayerGraph
from lavit_edge.quantize.kernels import drop_abandoned_lock
from lavit_edge.quantize.program import export_program
from lavit_edge.quantize.scheme import (
    HIGH,
    LOW,
    SMALLEST_SCALE,
    SMALLEST_WEIGHT_SCALE,
    WEIGHT_LOW,
    QuantizedAdd,
    QuantizedLayer,
    quantizable,
    quantizable_additions,
    replace,
)

try:
    warnings.filterwarnings("ignore", module="nncf")
    import nncf
    from nncf.common.quantization.structs import QuantizationScheme
    from nncf.torch.quantization.layers import AsymmetricQuantizer, PTQuantizerSpec, SymmetricQuantizer
except ImportError as error:
    raise UserError(f"quantising needs nncf ({error}); pip install 'lavit-edge[quantize]'") from error

nncf.set_log_level(logging.ERROR)

NO_CLAMP = (-math.inf, math.inf)
MOST_BIAS_STEPS = 2**30  # of int32's 2^31: the accumulator needs room beside the bias


class Observe(nn.Module):
    """Passes on its input and keeps its true minimum and maximum, zero included."""

    def __init__(self) -> None:
        super().__init__()
        self.low = self.high = 0.0

    def forward(self, x: Tensor) -> Tensor:
        low, high = torch.aminmax(x)
        self.low, self.high = min(self.low, low.item()), max(self.high, high.item())
        return x


@torch.no_grad()
def calibrate(deployed: Deployed, pictures: Sequence[Tensor], float_layers: Collection[str]) -> Deployed:
    """A copy of ``deployed`` whose layers stand between NNCF's learnable quantisers, ranges set from ``pictures``.

    Ranges of activations are the true minimum and maximum over the pictures: of inputs in the fp32 model, of outputs behind
    quantised inputs and weights, once rounding's part in the mean has gone into the biases. A layer that reads another's output
    shares its quantiser. Ranges of weights are the largest value of each output channel.

    Args:
        pictures: ``(1, 3, size, size)`` float32 RGB in 0..255 each.
        float_layers: module paths of the layers that stay as they are.
    """
    drop_abandoned_lock()  # NNCF loads its kernels when it quantises for the first time
    model = copy.deepcopy(deployed).eval()
    graph = LayerGraph(export_program(model, pictures[0].shape[-1]))
    layers, additions = quantizable(model.model, float_layers), quantizable_additions(model.model, float_layers)
    sources = {path: graph.inputs[path] for path in layers}
    inputs = _input_ranges(model, pictures, {path: name for path, name in sources.items() if name not in {**layers, **additions}})
    observers = {path: Observe() for path in [*layers, *additions]}
    for path, layer in layers.items():
        before = inputs.get(sources[path], nn.Identity())  # the output of another layer is quantised there
        replace(model.model, path, QuantizedLayer(layer, layer.weight, layer.bias, before, _symmetric(layer), observers[path]))
    _correct_biases(model, pictures)
    for path in additions:
        bounded = not math.isinf(graph.clamps.get(path, NO_CLAMP)[1])
        replace(model.model, path, QuantizedAdd(observers[path], bounded))
    for picture in pictures:
        model(picture)
    outputs = {path: _asymmetric(observer, graph.clamps.get(path, NO_CLAMP)) for path, observer in observers.items()}
    for path, quantizer in outputs.items():
        module = model.model.get_submodule(path)
        module.quantize_output = quantizer
        if path in layers and sources[path] in outputs:
            module.quantize_input = outputs[sources[path]]
    hold_ranges(model)
    return model


def _input_ranges(model: Deployed, pictures: Sequence[Tensor], sources: dict[str, str]) -> dict[str, nn.Module]:
    """Quantisers of the tensors that no quantised layer made, by name; ``sources``: which of them each layer reads."""
    observers = {name: Observe() for name in sources.values()}

    def observe(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor]) -> None:
            observers[name](inputs[0])

        return hook

    hooks = [model.model.get_submodule(path).register_forward_pre_hook(observe(name)) for path, name in sources.items()]
    for picture in pictures:
        model(picture)
    for hook in hooks:
        hook.remove()
    return {name: _asymmetric(observer) for name, observer in observers.items()}


@torch.no_grad()
def _correct_biases(model: Deployed, pictures: Sequence[Tensor]) -> None:
    """Adds to each bias what rounding the layer's input and weight takes from its mean output, by channel, over the pictures.

    A correction taken from a constant map, as NNCF's, is wrong where the taps of a convolution see different means (a stride as
    long as the kernel, zeros at the border). In a lit_nano after six epochs that one put a layer's biases 0.9 output steps off:
    calibration gave 33.3 dB, 34.6 without any correction, 35.3 with this one.
    """
    shifts: dict[QuantizedLayer, Tensor] = {}

    def measure(layer: QuantizedLayer, inputs: tuple[Tensor]) -> None:
        (x,) = inputs
        rounded = layer.compute(layer.quantize_input(x), layer.quantize_weight(layer.weight))
        lost = layer.compute(x, layer.weight) - rounded
        channels = -1 if layer.compute is nn.functional.linear else 1
        shifts[layer] = shifts.get(layer, 0) + lost.movedim(channels, 0).flatten(1).mean(1) / len(pictures)

    layers = [layer for layer in model.modules() if isinstance(layer, QuantizedLayer)]
    hooks = [layer.register_forward_pre_hook(measure) for layer in layers]
    for picture in pictures:
        model(picture)
    for hook in hooks:
        hook.remove()
    for layer, shift in shifts.items():
        if isinstance(layer.bias, Tensor):
            layer.bias += shift


def _symmetric(layer: nn.Linear | nn.Conv2d) -> SymmetricQuantizer:
    """A learnable quantiser of a layer's weight, a range per output channel."""
    weight = layer.weight
    shape = (len(weight), *[1] * (weight.dim() - 1))
    quantizer = SymmetricQuantizer(PTQuantizerSpec(8, QuantizationScheme.SYMMETRIC, True, True, False, shape, False))
    quantizer.scale.data = weight.abs().amax(tuple(range(1, weight.dim())), keepdim=True)
    return quantizer


def _asymmetric(observed: Observe, clamp: tuple[float, float] = NO_CLAMP) -> AsymmetricQuantizer:
    """A learnable quantiser of the observed range. Where a ReLU follows, it starts at zero for good: rounding is the ReLU; and it
    ends where a ReLU6 does."""
    quantizer = AsymmetricQuantizer(PTQuantizerSpec(8, QuantizationScheme.ASYMMETRIC, None, False, False, (1,), False))
    with torch.no_grad():
        low, high = max(observed.low, clamp[0]), min(observed.high, clamp[1])
        quantizer.input_low.fill_(low).requires_grad_(math.isinf(clamp[0]))
        quantizer.input_range.fill_(high - low).requires_grad_(math.isinf(clamp[1]))
    return quantizer


@torch.no_grad()
def hold_ranges(model: nn.Module) -> None:
    """Keeps every scale above the smallest that all runtimes can hold."""
    for quantizer in model.modules():
        if isinstance(quantizer, AsymmetricQuantizer):
            quantizer.input_range.clamp_(min=SMALLEST_SCALE * (HIGH - LOW))
        elif isinstance(quantizer, SymmetricQuantizer):
            quantizer.scale.clamp_(min=SMALLEST_WEIGHT_SCALE * HIGH)


@torch.no_grad()
def int8_form(model: Deployed) -> dict[str, Tensor]:
    """The int8 form (``scheme.check_tensors`` lists its tensors) of a model that :func:`calibrate` made."""
    layers = {path: module for path, module in model.model.named_modules() if isinstance(module, QuantizedLayer | QuantizedAdd)}
    inside = tuple(f"{path}." for path in layers)
    tensors = {name: value for name, value in model.model.state_dict().items() if not name.startswith(inside)}
    for path, layer in layers.items():
        ends = {"output": _affine(layer.quantize_output)}
        if isinstance(layer, QuantizedLayer):
            ends["input"] = _affine(layer.quantize_input)
        tensors |= {f"{path}.{end}_{name}": value for end, affine in ends.items() for name, value in affine.items()}
        if isinstance(layer, QuantizedAdd):
            continue
        quantize_weight: Any = layer.quantize_weight
        scale, step = quantize_weight.get_parameters_for_torch_fq()[2], ends["input"]["scale"]
        if isinstance(bias := layer.bias, Tensor):
            # Back ends keep biases as int32 in units of the accumulator, so the form does too: the logits of ExecuTorch and ONNX
            # Runtime came 1 dB nearer to the int8 program's. The scale of an all but empty channel grows until its bias fits.
            scale = torch.maximum(scale, bias.abs() / (step * MOST_BIAS_STEPS))
            tensors[f"{path}.bias"] = (bias / (step * scale)).round() * (step * scale)
        rounded = quantize_weight(layer.weight)  # by NNCF, so that a tie falls as it fell in training
        codes = (rounded / scale.reshape(-1, *[1] * (rounded.dim() - 1))).round().clamp(WEIGHT_LOW, HIGH)
        tensors |= {f"{path}.weight": codes.to(torch.int8), f"{path}.weight_scale": scale}
    return {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}


def _affine(quantizer: Any) -> dict[str, Tensor]:
    """Scale and zero point on the int8 grid; NNCF counts from 0 to 255."""
    low, _, scale, zero_point = quantizer.get_parameters_for_torch_fq()
    return {"scale": scale.reshape(()).float(), "zero_point": (zero_point.reshape(()) - low + LOW).to(torch.int32)}
