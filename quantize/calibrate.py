"""Post-training quantisation: NNCF finds the ranges, the model gets its learnable quantisers, and the int8 form is read off them.

NNCF's internals are used in one place, here; the package pins its version.
"""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lavit_edge.errors import UserError
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.scheme import (
    HIGH,
    LOW,
    SMALLEST_SCALE,
    SMALLEST_WEIGHT_SCALE,
    WEIGHT_LOW,
    QuantizedLayer,
    quantizable,
    replace,
)

# NNCF compiles its kernels once, and gives up after a minute; a busy machine with two cores needs more
os.environ.setdefault("NNCF_EXTENSION_LOAD_TIMEOUT", "900")

try:
    warnings.filterwarnings("ignore", module="nncf")
    import nncf
    from nncf.common.graph import NNCFGraph, NNCFNode
    from nncf.common.quantization.structs import QuantizationScheme
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        AdvancedSmoothQuantParameters,
        QuantizationParameters,
    )
    from nncf.torch.function_hook import get_hook_storage, wrap_model
    from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import build_nncf_graph
    from nncf.torch.quantization.layers import AsymmetricQuantizer, PTQuantizerSpec, SymmetricQuantizer
except ImportError as error:
    raise UserError(f"quantising needs nncf ({error}); pip install 'lavit-edge[quantize]'") from error

nncf.set_log_level(logging.ERROR)

QUANTIZER_OPS = {"asymmetric_quantize", "symmetric_quantize"}
SHAPE_OPS = {"reshape", "view", "flatten", "unflatten", "transpose", "permute", "squeeze", "unsqueeze", "contiguous"}
LAYER_OPS = {"linear", "conv2d"}
MOST_BIAS_STEPS = 2**30  # of int32's 2^31: the accumulator needs room beside the bias
PREFIX, HOOKS = "model.", "__nncf_hooks."  # of the names of the model inside Deployed, of NNCF's quantisers


class Observe(nn.Module):
    """Passes on its input and keeps its true minimum and maximum, zero included."""

    def __init__(self) -> None:
        super().__init__()
        self.low = self.high = 0.0

    def forward(self, x: Tensor) -> Tensor:
        low, high = torch.aminmax(x)
        self.low, self.high = min(self.low, low.item()), max(self.high, high.item())
        return x


def calibrate(deployed: Deployed, pictures: Sequence[Tensor], float_layers: Collection[str]) -> Deployed:
    """A copy of ``deployed`` whose layers stand between NNCF's learnable quantisers, ranges set from ``pictures``.

    Input and weight ranges are NNCF's. Corrected biases are ours, and so are the output ranges: the true minimum and maximum over
    the pictures, measured behind the quantised inputs and weights. NNCF sets none on outputs, and XNNPACK needs them.

    Args:
        pictures: ``(1, 3, size, size)`` float32 RGB in 0..255 each.
        float_layers: module paths of the layers that stay as they are.
    """
    advanced = AdvancedQuantizationParameters(
        disable_bias_correction=True,  # it is _correct_biases that does it
        # smoothing would add multiplications that no kernel absorbs; per-channel activations exist in no back end
        smooth_quant_alphas=AdvancedSmoothQuantParameters(convolution=-1, matmul=-1),
        activations_quantization_params=QuantizationParameters(num_bits=8, mode=QuantizationScheme.ASYMMETRIC, per_channel=False),
        weights_quantization_params=QuantizationParameters(
            num_bits=8, mode=QuantizationScheme.SYMMETRIC, signedness_to_force=True, per_channel=True
        ),
    )
    plain = build_nncf_graph(wrap_model(copy.deepcopy(deployed).eval()), pictures[0])
    found = nncf.quantize(
        copy.deepcopy(deployed).eval(),
        nncf.Dataset(pictures),
        subset_size=len(pictures),
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=nncf.IgnoredScope(names=[node.node_name for node, path in _layers(plain) if path in float_layers]),
        advanced_parameters=advanced,
    )
    model = copy.deepcopy(deployed).eval()
    model.load_state_dict({name: found.state_dict()[name] for name in model.state_dict()})
    graph = build_nncf_graph(found, pictures[0])
    sources, rectified = _sources(found, graph, float_layers), _rectified(graph)
    layers = quantizable(model.model, float_layers)
    observers = {path: Observe() for path in layers}
    for path, layer in layers.items():
        quantize_input, quantize_weight = sources[path]
        # the output of another layer is quantised there
        before = nn.Identity() if isinstance(quantize_input, str) else quantize_input
        replace(model.model, path, QuantizedLayer(layer, layer.weight, layer.bias, before, quantize_weight, observers[path]))
    _correct_biases(model, pictures)
    with torch.no_grad():
        for picture in pictures:
            model(picture)
    outputs = {path: _asymmetric(observer, path in rectified) for path, observer in observers.items()}
    for path in layers:
        module, quantize_input = model.model.get_submodule(path), sources[path][0]
        module.quantize_output = outputs[path]
        if isinstance(quantize_input, str):
            module.quantize_input = outputs[quantize_input]
    hold_ranges(model)
    return model


@torch.no_grad()
def _correct_biases(model: Deployed, pictures: Sequence[Tensor]) -> None:
    """Adds to each bias what rounding the layer's input and weight takes from its mean output, by channel, over the pictures.

    NNCF's own correction takes that mean from a constant map. That is wrong where the taps of a convolution see different means
    (a stride as long as the kernel, zeros at the border), and a threshold leaves most layers out. In a lit_nano after six epochs
    it put one layer's biases 0.9 output steps off: calibration gave 33.3 dB, 34.6 without any correction, 35.3 with this one.
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


def _sources(found: nn.Module, graph: NNCFGraph, float_layers: Collection[str]) -> dict[str, tuple[nn.Module | str, nn.Module]]:
    """Layer path -> the quantiser of its input, or the path of the layer whose output is its input; and its weight's quantiser.

    NNCF may put one quantiser on a tensor for all its consumers, or one on each; here each tensor keeps one.
    """
    hooks, rectified = dict(_hooks(found)), _rectified(graph)
    quantizers: dict[str, nn.Module] = {}
    sources = {}
    for node, path in _layers(graph):
        if path in float_layers:
            continue
        before, quantizer = _input(graph, node, 0), None
        while before.node_type in QUANTIZER_OPS | SHAPE_OPS or before.node_name in rectified.values():
            if before.node_type in QUANTIZER_OPS:
                quantizer = _hook(graph, before, hooks)
            before = _input(graph, before, 0)
        source: nn.Module | str
        if before.node_type in LAYER_OPS and _path(graph, before) not in float_layers:
            source = _path(graph, before)
        elif quantizer is not None:
            source = quantizers.setdefault(before.node_name, quantizer)
        else:
            raise RuntimeError(f"NNCF left the input of {path} float")
        sources[path] = (source, _hook(graph, _input(graph, node, 1), hooks))
    return sources


def _rectified(graph: NNCFGraph) -> dict[str, str]:
    """Layer path -> node name of the ReLU that alone follows it."""
    after = {path: graph.get_next_nodes(node) for node, path in _layers(graph)}
    return {path: nodes[0].node_name for path, nodes in after.items() if [node.node_type for node in nodes] == ["relu"]}


def _layers(graph: NNCFGraph) -> list[tuple[NNCFNode, str]]:
    return [(node, _path(graph, node)) for node in graph.get_all_nodes() if node.node_type in LAYER_OPS]


def _path(graph: NNCFGraph, node: NNCFNode) -> str:
    """The module path of a linear or convolution node, by the name of its weight."""
    weight = _input(graph, node, 1)
    if weight.node_type in QUANTIZER_OPS:
        weight = _input(graph, weight, 0)
    return weight.node_name.removeprefix(PREFIX).removesuffix(".weight")


def _hooks(found: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Each of NNCF's quantisers with the name that its parameters carry in the graph."""
    storage = get_hook_storage(found)
    for kind in ("pre_hooks", "post_hooks"):
        for key, modules in getattr(storage, kind).items():
            for index, hook in modules.items():
                yield f"{HOOKS}{kind}.{key}.{index}", hook


def _hook(graph: NNCFGraph, node: NNCFNode, hooks: dict[str, nn.Module]) -> nn.Module:
    """The quantiser behind a quantise node."""
    parameter = next(before.node_name for before in graph.get_previous_nodes(node) if before.node_name.startswith(HOOKS))
    return hooks[parameter.rpartition(".")[0]]


def _input(graph: NNCFGraph, node: NNCFNode, port: int) -> NNCFNode:
    return next(edge.from_node for edge in graph.get_input_edges(node) if edge.input_port_id == port)


def _asymmetric(observed: Observe, rectified: bool) -> AsymmetricQuantizer:
    """A learnable quantiser of the observed range; where a ReLU follows, it starts at zero for good: rounding is the ReLU."""
    quantizer = AsymmetricQuantizer(PTQuantizerSpec(8, QuantizationScheme.ASYMMETRIC, None, False, False, (1,), False))
    with torch.no_grad():
        low = 0.0 if rectified else observed.low
        quantizer.input_low.fill_(low).requires_grad_(not rectified)
        quantizer.input_range.fill_(observed.high - low)
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
    layers = {path: module for path, module in model.model.named_modules() if isinstance(module, QuantizedLayer)}
    inside = tuple(f"{path}." for path in layers)
    tensors = {name: value for name, value in model.model.state_dict().items() if not name.startswith(inside)}
    for path, layer in layers.items():
        ends = {"input": _affine(layer.quantize_input), "output": _affine(layer.quantize_output)}
        tensors |= {f"{path}.{end}_{name}": value for end, affine in ends.items() for name, value in affine.items()}
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
