"""From a checkpoint to programs: the float one, the int8 one that every exporter consumes, and the fake-quantised model.

All take ``(1, 3, size, size)`` float32 RGB in 0..255 and give ``(1, classes)`` float32 logits (the model takes any batch).
Only torch is needed here: the int8 form is read from the checkpoint folder.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from lavit_edge.checkpoint import CONFIG, INT8, Checkpoint, load_tensors
from lavit_edge.errors import UserError
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.scheme import (
    HIGH,
    LOW,
    check_tensors,
    default_float_layers,
    quantizable,
    quantizable_additions,
    quantized_model,
)
from lavit_edge.traced.layers import fold_constants
from lavit_edge.traced.nodes import clamp_of, is_call, moves

QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
ROUNDING = 1e-6  # 255 times a 255th in float32
DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default
DEQUANTIZE_WEIGHT = torch.ops.quantized_decomposed.dequantize_per_channel.default


def float_program(checkpoint: Checkpoint) -> ExportedProgram:
    """The fp32 program of a checkpoint."""
    program = export_program(Deployed(checkpoint.model, checkpoint.contract).eval(), checkpoint.contract.size)
    module = program.module(check_guards=False)
    return export_program(module, checkpoint.contract.size) if fold_constants(module) else program


def int8_program(checkpoint: Checkpoint) -> ExportedProgram:
    """The int8 program: ``quantized_decomposed`` operators and stored int8 weights, rebuilt bit for bit from the folder.

    Around each quantised layer it reads ``dequantize -> linear or convolution -> quantize``, also behind reshapes and transposes.

    Raises:
        UserError: the checkpoint is not quantised, or its ``int8.safetensors`` is damaged.
    """
    module = export_program(_quantized(checkpoint, "int8"), checkpoint.contract.size).module(check_guards=False)
    fold_constants(module, kept=(DEQUANTIZE_WEIGHT,))  # those that the size of a batch has kept from being folded before
    return export_program(tidy(module), checkpoint.contract.size)


def fake_quantized(checkpoint: Checkpoint) -> nn.Module:
    """The model with ``torch.fake_quantize_*`` wherever the int8 program quantises; any batch. Raises as :func:`int8_program`."""
    return _quantized(checkpoint, "fake")


def _quantized(checkpoint: Checkpoint, kind: str) -> nn.Module:
    if not checkpoint.quantized:
        command = f"python -m lavit_edge.quantize --checkpoint {checkpoint.path} --data DIR --out DIR"
        raise UserError(f"{checkpoint.path} is not quantised (no {INT8}); run {command}")
    tensors = load_tensors(checkpoint.path / INT8, checkpoint.config)
    deployed = Deployed(checkpoint.model, checkpoint.contract)
    float_layers = stored_float_layers(checkpoint, deployed.model)
    check_tensors(deployed.model, tensors, float_layers, str(checkpoint.path / INT8))
    deployed.model = quantized_model(deployed.model, tensors, float_layers, kind)  # type: ignore[arg-type]
    return deployed.eval()


def stored_float_layers(checkpoint: Checkpoint, model: nn.Module) -> frozenset[str]:
    """Module paths of the layers that a quantised checkpoint keeps in float, from its ``config.json``; the default ones where it
    names none, as before there was a choice. ``model`` is its model in ``deploy()`` form.

    Raises:
        UserError: they are not a list of layers of the model.
    """
    facts = checkpoint.config.get("quantization")
    if not isinstance(facts, dict) or "float_layers" not in facts:
        return default_float_layers(model)
    paths, known = facts["float_layers"], {**quantizable(model, ()), **quantizable_additions(model, ())}
    if not isinstance(paths, list) or not all(isinstance(path, str) and path in known for path in paths):
        raise UserError(f"{checkpoint.path / CONFIG}: 'float_layers' must list linear or convolution layers of the model")
    return frozenset(paths)


def export_program(model: nn.Module, size: int) -> ExportedProgram:
    """The program of a module that takes ``(1, 3, size, size)``, without this machine's paths."""
    with torch.no_grad():
        program = torch.export.export(model, (torch.zeros(1, 3, size, size),))
    for check in program.graph.find_nodes(op="call_function", target=torch.ops.aten._assert_tensor_metadata.default):
        program.graph.erase_node(check)
    for pooling in program.graph.find_nodes(op="call_function", target=torch.ops.aten.max_pool2d.default):
        if len(pooling.args) == 2:  # coremltools 9.0 wants the stride, which is the size of the window where none is given
            pooling.args = (*pooling.args, pooling.args[1])
    program.graph.eliminate_dead_code()  # back ends do, and number what is left: `verify --locate` goes by number
    program.graph_module.recompile()
    for node in program.graph.nodes:  # they would carry this machine's paths and addresses into every file made from the program
        for key in ("stack_trace", "from_node"):
            node.meta.pop(key, None)
    return program


def tidy(module: fx.GraphModule) -> fx.GraphModule:
    """Rewrites the Q/DQ operators of an exported module in place, keeping every value bit for bit, so that back ends match them.

    XNNPACK takes a layer as int8 only when a dequantize feeds it directly and one quantize is its single user; ONNX Runtime too
    wants its dequantize next to the operator. Quantising what is already on the same grid is exact, so pairs of them can come and
    go there.
    """
    graph = module.graph
    for node in list(graph.nodes):  # codes start at zero: the ReLU is done; and end at 6 at the latest: ReLU6
        if (clamp := clamp_of(node)) and is_call(node.args[0], DEQUANTIZE) and _within(node.args[0], *clamp):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    for node in list(graph.nodes):  # int8 all the way through reshapes, transposes and zeros around a map
        source = node.args[0] if node.args else None
        if moves(node) and isinstance(source, fx.Node) and is_call(source, DEQUANTIZE):
            _requantize(graph, node, source.args[1:])
    for node in list(graph.nodes):  # quantise again what was just dequantised: drop
        if is_call(node, QUANTIZE) and is_call(node.args[0], DEQUANTIZE) and node.args[1:] == node.args[0].args[1:]:
            node.replace_all_uses_with(node.args[0].args[0])
    first: dict[tuple, fx.Node] = {}
    for node in list(graph.nodes):  # one quantize for all consumers of a tensor
        if is_call(node, QUANTIZE) and (same := first.setdefault(node.args, node)) is not node:
            node.replace_all_uses_with(same)
    graph.eliminate_dead_code()
    for node in list(graph.nodes):  # but one dequantize each
        if is_call(node, DEQUANTIZE):
            for user in list(node.users)[1:]:
                with graph.inserting_before(user):
                    user.replace_input_with(node, graph.create_node("call_function", DEQUANTIZE, node.args))
    graph.lint()
    module.recompile()
    return module


def _within(dequantize: fx.Node, low: float, high: float) -> bool:
    """Whether all that 8 bits can say is between two values."""
    _, scale, zero_point = cast(Any, dequantize.args[:3])
    return bool((LOW - zero_point) * scale >= low and (HIGH - zero_point) * scale <= high * (1 + ROUNDING))


def _requantize(graph: fx.Graph, node: fx.Node, arguments: tuple) -> None:
    """Q/DQ after ``node``, in front of all its users."""
    users = list(node.users)
    with graph.inserting_after(node):
        codes = graph.create_node("call_function", QUANTIZE, (node, *arguments))
    with graph.inserting_after(codes):
        value = graph.create_node("call_function", DEQUANTIZE, (codes, *arguments))
    for user in users:
        user.replace_input_with(node, value)
