"""The int8 scheme as data, and the modules that compute it.

Every ``nn.Linear`` and ``nn.Conv2d`` is quantised but for a checkpoint's *float layers*, by default those that its architecture
names (the first embedding and the head in all of them), and so is the output of every ``Add``; softmax, attention products,
LayerNorm, GELU and other additions stay float (docs/int8.md says why). One quantised layer computes

    y = q_out( conv_or_linear( q_in(x), q_weight(W) ) + b ),        q(x) = (clamp(round(x / s) + z, low, high) - z) * s

with one scale and zero point per tensor for ``q_in`` and ``q_out`` (int8, asymmetric), and one scale per output channel for
``q_weight`` (int8 in [-127, 127], zero point 0). XNNPACK's static int8 kernels need all three around each layer. ``b`` is a whole
number of steps of ``q_in``'s scale times ``q_weight``'s, as back ends keep it in int32.

Three kinds of quantiser fill that one form, :class:`QuantizedLayer`: NNCF's learnable ones while ranges are found and trained
(``calibrate``), ``torch.fake_quantize_*`` (the fake-quantised model), and ``quantized_decomposed`` operators on stored int8
weights (the int8 program). Where a layer's input is another quantised layer's output, through reshapes and transposes alone,
both use the same scale and zero point, so that nothing is rounded twice. Where a ReLU alone follows a layer, the output range
starts at zero (zero point -128), so that rounding is the ReLU, and the ReLU drops out of the program.
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
from collections.abc import Callable, Collection
from typing import Literal, cast

import torch
import torch.ao.quantization.fx._decomposed
from torch import Tensor, nn

from lavit_edge.errors import UserError
from lavit_edge.models.blocks import Add
from lavit_edge.models.classifier import Classifier
from lavit_edge.traced.model import TracedModule

LOW, HIGH = -128, 127
WEIGHT_LOW = -127  # symmetric: -128 has no counterpart
# Core ML holds scales in fp16: activation scales stay in its normal range, those of (all but empty) weight channels above zero
SMALLEST_SCALE, SMALLEST_WEIGHT_SCALE = 2.0**-14, 2.0**-24
DESCRIPTION = {
    "weights": "int8 [-127, 127], symmetric, one scale per output channel",
    "activations": "int8 [-128, 127], asymmetric, one scale and zero point per tensor, at inputs and outputs of quantised layers",
    "biases": "multiples of input scale x weight scale, which back ends keep as int32",
    "quantized": "every Linear, Conv2d and Add except the float layers",
    "float": "the float layers, softmax, attention products, LayerNorm, GELU, other additions",
}


class QuantizedLayer(nn.Module):
    """A linear or convolution layer between quantisers; takes the place of ``layer`` in the model.

    Args:
        layer: gives shapes, strides and the rest; its own weight and bias are not used.
        weight: what ``quantize_weight`` is given: float, or the stored int8 values.
    """

    def __init__(
        self,
        layer: nn.Linear | nn.Conv2d,
        weight: Tensor,
        bias: Tensor | None,
        quantize_input: nn.Module,
        quantize_weight: nn.Module,
        quantize_output: nn.Module,
    ) -> None:
        super().__init__()
        self.compute: Callable[..., Tensor] = nn.functional.linear
        if isinstance(layer, nn.Conv2d):
            if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
                raise ValueError("only convolutions padded with zeros, by a number, are quantised")
            self.compute = functools.partial(
                nn.functional.conv2d, stride=layer.stride, padding=layer.padding, dilation=layer.dilation, groups=layer.groups
            )
        for name, value in (("weight", weight), ("bias", bias)):
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, value)
        self.quantize_input, self.quantize_weight, self.quantize_output = quantize_input, quantize_weight, quantize_output

    def forward(self, x: Tensor) -> Tensor:
        return self.quantize_output(self.compute(self.quantize_input(x), self.quantize_weight(self.weight), self.bias))


class QuantizedAdd(nn.Module):
    """An addition whose output is quantised; takes the place of an :class:`lavit_edge.models.blocks.Add`.

    Args:
        bounded: the end of its range stands for a ReLU6, and must stay.
    """

    def __init__(self, quantize_output: nn.Module, bounded: bool = False) -> None:
        super().__init__()
        self.quantize_output, self.bounded = quantize_output, bounded

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.quantize_output(x + y)


class QuantizeDequantize(nn.Module):
    """Per tensor, in the operators that exporters read."""

    def __init__(self, scale: float, zero_point: int) -> None:
        super().__init__()
        self.arguments = (scale, zero_point, LOW, HIGH, torch.int8)

    def forward(self, x: Tensor) -> Tensor:
        codes = torch.ops.quantized_decomposed.quantize_per_tensor.default(x, *self.arguments)
        return torch.ops.quantized_decomposed.dequantize_per_tensor.default(codes, *self.arguments)


class Dequantize(nn.Module):
    """Stored int8 weights to float, one scale per output channel."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros(len(scale), dtype=torch.int64))

    def forward(self, codes: Tensor) -> Tensor:
        arguments = (codes, self.scale, self.zero_point, 0, WEIGHT_LOW, HIGH, torch.int8)
        return torch.ops.quantized_decomposed.dequantize_per_channel.default(*arguments)


class FakeQuantize(nn.Module):
    """Per tensor, rounding to the int8 grid in float."""

    def __init__(self, scale: float, zero_point: int) -> None:
        super().__init__()
        self.scale, self.zero_point = scale, zero_point

    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, LOW, HIGH)


class FakeQuantizeWeight(nn.Module):
    """Per output channel, rounding to the int8 grid in float."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros(len(scale), dtype=torch.int32))

    def forward(self, weight: Tensor) -> Tensor:
        return torch.fake_quantize_per_channel_affine(weight, self.scale, self.zero_point, 0, WEIGHT_LOW, HIGH)


def quantizable(model: nn.Module, float_layers: Collection[str]) -> dict[str, nn.Linear | nn.Conv2d]:
    """Module path -> layer, for each layer of a model (in its ``deploy()`` form) that is not to stay float."""
    layers = {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    return {path: layer for path, layer in layers.items() if path not in float_layers}


def quantizable_additions(model: nn.Module, float_layers: Collection[str]) -> dict[str, Add]:
    """Module path -> addition, for each that is a module of its own and is not to stay float."""
    return {path: module for path, module in model.named_modules() if isinstance(module, Add) and path not in float_layers}


def default_float_layers(model: nn.Module) -> frozenset[str]:
    """Module paths of the layers that stay float unless a checkpoint says otherwise: the model's own ``float_layers``."""
    layers, patterns = quantizable(model, ()), cast(Classifier | TracedModule, model).float_layers
    return frozenset(path for pattern in patterns for path in fnmatch.filter(layers, pattern))


def chosen_float_layers(model: nn.Module, patterns: Collection[str]) -> frozenset[str]:
    """The default ones, and those whose path matches a shell pattern. Raises :class:`UserError` for a pattern without a match."""
    layers, chosen = [*quantizable(model, ()), *quantizable_additions(model, ())], default_float_layers(model)
    for pattern in patterns:
        matching = fnmatch.filter(layers, pattern)
        if not matching:
            near = difflib.get_close_matches(pattern, layers, n=1, cutoff=0.3) or layers[:1]
            raise UserError(f"--float-layers {pattern}: no such layer; one is called {near[0]}")
        chosen |= set(matching)
    return chosen


def replace(model: nn.Module, path: str, module: nn.Module) -> None:
    """Puts ``module`` at ``path``."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def check_tensors(model: nn.Module, tensors: dict[str, Tensor], float_layers: Collection[str], source: str) -> None:
    """Raises :class:`UserError` unless ``tensors`` is a whole and sound int8 form of ``model`` (in its ``deploy()`` form).

    The int8 form holds, for each quantised layer at path P: ``P.weight`` (int8), ``P.weight_scale`` (float32, one per output
    channel), ``P.bias``, and ``P.input_scale``, ``P.input_zero_point``, ``P.output_scale``, ``P.output_zero_point`` (float32 and
    int32 scalars); for each quantised addition the last two; and every other tensor of ``model.state_dict()`` under its own name.
    """
    wanted = {name: (value.dtype, value.shape) for name, value in model.state_dict().items()}
    for path, layer in quantizable(model, float_layers).items():
        wanted[f"{path}.weight"] = (torch.int8, layer.weight.shape)
        wanted[f"{path}.weight_scale"] = (torch.float32, layer.weight.shape[:1])
    ends = [f"{path}.{end}" for path in quantizable(model, float_layers) for end in ("input", "output")]
    for end in [*ends, *(f"{path}.output" for path in quantizable_additions(model, float_layers))]:
        wanted[f"{end}_scale"] = (torch.float32, torch.Size())
        wanted[f"{end}_zero_point"] = (torch.int32, torch.Size())
    again = "; quantise the checkpoint again"
    if missing := sorted(set(wanted) - set(tensors)):
        raise UserError(f"{source}: tensor {missing[0]!r} is missing ({len(missing)} in all){again}")
    if unknown := sorted(set(tensors) - set(wanted)):
        raise UserError(f"{source}: tensor {unknown[0]!r} is not part of this model ({len(unknown)} in all){again}")
    for name, (dtype, shape) in wanted.items():
        value = tensors[name]
        if value.dtype != dtype or value.shape != shape:
            raise UserError(f"{source}: {name!r} is {value.dtype} {tuple(value.shape)}, expected {dtype} {tuple(shape)}{again}")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"{source}: {name!r} holds NaN or inf{again}")
        if name.endswith("_scale") and not bool((value > 0).all()):
            raise UserError(f"{source}: {name!r} holds a scale that is not positive{again}")
        if name.endswith("_zero_point") and not LOW <= int(value) <= HIGH:
            raise UserError(f"{source}: {name!r} is {int(value)}, outside [{LOW}, {HIGH}]{again}")


def quantized_model(
    model: nn.Module, tensors: dict[str, Tensor], float_layers: Collection[str], kind: Literal["int8", "fake"]
) -> nn.Module:
    """Fills ``model`` (in its ``deploy()`` form; in place, and returned) from an int8 form that :func:`check_tensors` accepts.

    Args:
        kind: ``int8`` computes with Q/DQ operators on stored int8 weights, ``fake`` with ``torch.fake_quantize_*`` in float.
    """
    layers = quantizable(model, float_layers)
    float_names = [name for name in model.state_dict() if name.rpartition(".")[0] not in layers]
    model.load_state_dict({name: tensors[name] for name in float_names}, strict=False)
    activation, of_weight = (QuantizeDequantize, Dequantize) if kind == "int8" else (FakeQuantize, FakeQuantizeWeight)

    def quantizer(end: str) -> nn.Module:
        return activation(float(tensors[f"{end}_scale"]), int(tensors[f"{end}_zero_point"]))

    for path, layer in layers.items():
        weight, scale, bias = tensors[f"{path}.weight"], tensors[f"{path}.weight_scale"], tensors.get(f"{path}.bias")
        if kind == "fake":
            weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
        ends = quantizer(f"{path}.input"), of_weight(scale), quantizer(f"{path}.output")
        replace(model, path, QuantizedLayer(layer, weight, bias, *ends))
    for path in quantizable_additions(model, float_layers):
        replace(model, path, QuantizedAdd(quantizer(f"{path}.output")))
    return model.eval()
