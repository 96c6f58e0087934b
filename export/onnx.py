"""ONNX: one QDQ ``.onnx`` (opset 20), and ONNX Runtime's own format beside it for phones."""

from __future__ import annotations

import collections
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from lavit_edge.artifact.payload import Payload
from lavit_edge.artifact.seal import seal
from lavit_edge.export.targets import OnnxOptions, check_fit
from lavit_edge.files import staged
from lavit_edge.quantize.program import DEQUANTIZE_WEIGHT
from lavit_edge.toolchain import converting, toolchain

# From 21 on, QuantizeLinear has an output type, and ONNX Runtime 1.31 on x86 fails on its own int8 -> uint8 rewrite of it.
OPSET = 20
# ONNX Runtime may move quantisers past the first, and takes the others into a layer
MOVING = ("MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Slice")
PASSED = (*MOVING, "Relu", "Clip", "Add")


def export(program: ExportedProgram, payload: Payload, path: Path, options: OnnxOptions) -> None:
    """Writes the ``.onnx``, and the ``.ort`` of the same stem for ONNX Runtime's small builds.

    Input ``image``: float32 ``(1, 3, size, size)`` RGB in 0..255. Output ``logits``: float32 ``(1, classes)``.

    Raises as :meth:`lavit_edge.export.targets.Target.export`.
    """
    check_fit(program, payload.contract, path, ".onnx")
    with toolchain("ONNX export", "onnx"):
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    with staged(path) as temporary:
        with converting("torch's ONNX exporter"):
            model = to_onnx(program)
        onnx.helper.set_model_props(model, payload.metadata())
        with converting("ONNX Runtime"):
            onnx.checker.check_model(model, full_check=True)
            onnx.save(model, temporary)
            _save_ort(onnxruntime, model, temporary.with_suffix(".ort"))
        seal(temporary.with_suffix(".ort"))
        seal(temporary)


def to_onnx(program: ExportedProgram) -> Any:
    """The program as a ``ModelProto`` that ONNX Runtime computes in int8."""
    names: dict[str, Any] = dict(input_names=["image"], output_names=["logits"])
    exported = torch.onnx.export(program, (), dynamo=True, opset_version=OPSET, optimize=True, verbose=False, **names)
    assert exported is not None
    model = exported.model_proto
    own_weights(model, program)
    fold_weight_transposes(model)
    fold_paddings(model)
    unsigned_activations(model)
    own_zero_points(model)
    keep_float_weights(model)
    _drop_traces(model)
    return model


def own_weights(model: Any, program: ExportedProgram) -> None:
    """Gives each layer an int8 weight of its own, in place, under its own name, where torch stores equal codes once (of Theta and
    Psi of all blocks before training), and dequantises them once where their scales are equal, too.

    ONNX Runtime rewrites weights when ``session.x64quantprecision`` is set, and refuses the model when it meets one again.
    """
    from onnx import numpy_helper

    graph, buffers = model.graph, program.graph_signature.inputs_to_buffers
    calls = [node for node in program.graph.nodes if node.target == DEQUANTIZE_WEIGHT]
    read = [[buffers.get(argument.name) for argument in node.args[:2]] for node in calls]
    stored = {names[0]: [program.state_dict[name] for name in names] for names in read if set(names) <= program.state_dict.keys()}
    values = {tensor.name: tensor for tensor in graph.initializer}
    users = _users(graph)
    taken: set[str] = set()
    for dequantize, weight, _ in list(_int8_weights(model)):
        chain, readers = [dequantize], users[dequantize.output[0]]
        if [node.op_type for node in readers] == ["Transpose"]:
            chain, readers = [*chain, *readers], users[readers[0].output[0]]
        own = [torch.tensor(numpy_helper.to_array(values[name])) for name in dequantize.input[:2]]
        equal = [name for name in stored if name not in taken and all(map(torch.equal, stored[name], own))]
        for index, (name, reader) in enumerate(zip(equal, readers, strict=False)):
            taken.add(name)
            if name not in values:
                graph.initializer.add().CopyFrom(weight)
                graph.initializer[-1].name = name
            if index == 0:
                dequantize.input[0] = name
                continue
            value = name
            for node in chain:
                at = list(graph.node).index(node) + len(chain)
                graph.node.insert(at, node)
                graph.node[at].input[0] = value
                graph.node[at].name, graph.node[at].output[0] = (f"{each}_{name}" for each in (node.name, node.output[0]))
                value = graph.node[at].output[0]
            reader.input[list(reader.input).index(chain[-1].output[0])] = value


def fold_weight_transposes(model: Any) -> None:
    """Stores int8 weights, in place, the way their MatMul reads them.

    torch writes ``DequantizeLinear -> Transpose -> MatMul``; ONNX Runtime makes an int8 product of ``DequantizeLinear -> MatMul``
    only.
    """
    from onnx import numpy_helper

    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    dequantize = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in stored}
    users = collections.Counter(name for node in graph.node for name in node.input)
    for node in [node for node in graph.node if node.op_type == "Transpose" and node.input[0] in dequantize]:
        source = dequantize[node.input[0]]
        weight = stored[source.input[0]]
        if users[source.output[0]] > 1 or users[weight.name] > 1:
            raise NotImplementedError(f"weight {weight.name} is used both transposed and as it is")
        order = list(next(attribute.ints for attribute in node.attribute if attribute.name == "perm"))
        value = np.ascontiguousarray(numpy_helper.to_array(weight).transpose(order))
        weight.CopyFrom(numpy_helper.from_array(value, weight.name))
        for attribute in source.attribute:
            if attribute.name == "axis":
                attribute.i = order.index(attribute.i % len(order))
        source.output[0] = node.output[0]
        graph.node.remove(node)
    del graph.value_info[:]  # holds the old shapes


def fold_paddings(model: Any) -> None:
    """Leaves the zeros around an int8 map to the convolution, in place, which can put other numbers on either side.

    ONNX Runtime does so in float, but computes ``DequantizeLinear -> Pad -> QuantizeLinear`` as it stands.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    for convolution in [node for node in graph.node if node.op_type == "Conv"]:
        chain = list(_makers(makers, convolution.input[0]))
        if [node.op_type for node in chain] != ["DequantizeLinear", "QuantizeLinear", "Pad", "DequantizeLinear"]:
            continue
        _, quantize, pad, dequantize = chain
        if any(attribute.name == "mode" and attribute.s != b"constant" for attribute in pad.attribute):  # reflects, or the like
            continue
        grids = [[numpy_helper.to_array(stored[name]).item() for name in node.input[1:]] for node in (quantize, dequantize)]
        sides, value = (numpy_helper.to_array(stored[name]) for name in pad.input[1:3])
        of_maps = sides.size == 8 and sides.min() >= 0 and not sides[[0, 1, 4, 5]].any()  # before all axes, then behind them
        if grids[0] != grids[1] or value != 0 or not of_maps:
            continue
        own = next((attribute for attribute in convolution.attribute if attribute.name == "pads"), None)
        total = sides[[2, 3, 6, 7]] + (own.ints if own else 0)
        if own:
            convolution.attribute.remove(own)
        convolution.attribute.append(helper.make_attribute("pads", total.tolist()))
        convolution.input[0] = dequantize.output[0]
    _drop_unused(graph)


def _users(graph: Any) -> dict[str, list[Any]]:
    """Value -> the nodes that read it."""
    users: dict[str, list[Any]] = collections.defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    return users


def _makers(makers: dict[str, Any], name: str) -> Iterator[Any]:
    """The nodes that a value comes from, through the first input of each, four at the most."""
    for _ in range(4):
        if name not in makers:
            return
        yield makers[name]
        name = makers[name].input[0]


def _drop_unused(graph: Any) -> None:
    """Takes out nodes that nobody reads."""
    used = collections.Counter([*(name for node in graph.node for name in node.input), *(value.name for value in graph.output)])
    for node in reversed(list(graph.node)):
        if not any(used[name] for name in node.output):
            used.subtract(node.input)
            graph.node.remove(node)


def unsigned_activations(model: Any) -> None:
    """Stores activations as uint8, in place: codes and zero points 128 higher, so every value stays the same.

    On x86-64 ONNX Runtime has fast kernels for uint8 activations only, and rewrites int8 ones itself; but not those that two
    operators read, as each residual branch does. Of lavit_mobile's 52 convolutions 32 then ran in float: 3.9 ms, 1.4 ms so.
    """
    from onnx import numpy_helper

    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    unsigned: dict[str, Any] = {}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[0] not in stored:
            name = f"{node.input[2]}_unsigned"
            zero_point = numpy_helper.to_array(stored[node.input[2]])
            unsigned[name] = numpy_helper.from_array((zero_point.astype(np.int16) + 128).astype(np.uint8), name)
            node.input[2] = name
    graph.initializer.extend(unsigned.values())
    used = {name for node in graph.node for name in node.input}
    for name, tensor in stored.items():
        if name not in used:
            graph.initializer.remove(tensor)
    del graph.value_info[:]  # holds the old types


def keep_float_weights(model: Any) -> None:
    """Keeps ONNX Runtime, in place, from making the weights of float layers int8 where codes come and go.

    Its ``WeightBiasQuantization`` then gives all channels one scale: a transposed convolution was 38 dB from the program. It
    takes layers whose bias is stored or missing, so that here the bias is dequantised: its signs, with its sizes as scales, which
    is exact. Kernels that want a stored bias are lost, so other layers are left as they are.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    users = _users(graph)

    def from_codes(name: str) -> bool:
        while name in makers and makers[name].op_type in MOVING:
            name = makers[name].input[0]
        return name in makers and makers[name].op_type == "DequantizeLinear"

    def to_codes(name: str) -> bool:
        return any(
            node.op_type == "QuantizeLinear" or (node.op_type in PASSED and to_codes(node.output[0])) for node in users[name]
        )

    for layer in list(graph.node):
        weight = stored.get(layer.input[1]) if layer.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") else None
        if weight is None or not from_codes(layer.input[0]) or not to_codes(layer.output[0]):
            continue
        reader, index = layer, 2
        if layer.op_type == "MatMul":  # it becomes a Gemm with what is added behind it
            reader = next((node for node in users[layer.output[0]] if node.op_type == "Add"), layer)
            index = int(reader.input[0] == layer.output[0])
        if len(reader.input) == index:
            bias = np.zeros(_outputs(layer, weight), np.float32)
            reader.input.append("")
        elif reader.input[index] in stored and len(stored[reader.input[index]].dims) == 1:
            bias = numpy_helper.to_array(stored[reader.input[index]])
        else:
            continue
        name = f"{layer.output[0]}_bias"
        size = np.abs(bias)
        values = {"sign": np.sign(bias).astype(np.int32), "size": np.where(size > 0, size, np.float32(1))}
        graph.initializer.extend(numpy_helper.from_array(value, f"{name}_{each}") for each, value in values.items())
        reader.input[index] = name
        dequantize = helper.make_node("DequantizeLinear", [f"{name}_{each}" for each in values], [name], axis=0)
        graph.node.insert(list(graph.node).index(layer), dequantize)


def _outputs(layer: Any, weight: Any) -> int:
    """Output channels of a layer."""
    options = {attribute.name: attribute.i for attribute in layer.attribute}
    if layer.op_type == "ConvTranspose":
        return weight.dims[1] * options.get("group", 1)
    return weight.dims[1 if layer.op_type == "Gemm" and not options.get("transB") else 0]


def _int8_weights(model: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Each int8 weight's DequantizeLinear, the weight, and its zero points."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        weight = stored.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if weight is not None and weight.data_type == weight.INT8:
            yield node, weight, stored[node.input[2]]


def own_zero_points(model: Any) -> None:
    """Gives each int8 weight zero points of its own, in place, where torch shares those that are equal.

    ONNX Runtime rewrites both when ``session.x64quantprecision`` is set (lavit_edge/artifact/runners.py says why it is), and
    refuses the model when it meets the same zero points again.
    """
    for node, weight, zero_point in list(_int8_weights(model)):
        own = model.graph.initializer.add()
        own.CopyFrom(zero_point)
        own.name = node.input[2] = f"{weight.name}_zero_point"
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)


def unsigned_weights(model: Any) -> None:
    """Stores int8 weights as uint8, in place: codes and zero points 128 higher, so every value stays the same."""
    from onnx import numpy_helper

    for _, *tensors in _int8_weights(model):
        for tensor in tensors:
            code = numpy_helper.to_array(tensor).astype(np.int16) + 128
            tensor.CopyFrom(numpy_helper.from_array(code.astype(np.uint8), tensor.name))


def _drop_traces(model: Any) -> None:
    """Takes out the Python stack traces that torch stores with each node: 1.5 MB of lavit_nano's 7.6, and the host's paths."""
    graph = model.graph
    for item in [model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output]:
        del item.metadata_props[:]
        item.doc_string = ""


def _save_ort(onnxruntime: Any, model: Any, path: Path) -> None:
    """What ``onnxruntime.tools.convert_onnx_models_to_ort --optimization_style Fixed`` does to a file, with uint8 weights.

    On x86-64 without VNNI products with int8 weights saturate, and what makes an ``.onnx`` safe there when it is loaded
    (``session.x64quantprecision``) comes too late for an ``.ort``. On Arm either kind is the same to ONNX Runtime's kernels.
    """
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    options.add_session_config_entry("session.save_model_format", "ORT")
    model = copy.deepcopy(model)
    unsigned_weights(model)
    # NCHWc blocks are as wide as this host's vectors; another machine could not run them
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=["NchwcTransformer"]
    )
