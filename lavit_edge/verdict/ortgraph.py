"""Reads what ONNX Runtime will execute: the graph of an ``.ort``, or the graph that it makes of an ``.onnx`` when it loads it.

ONNX Runtime decides at load time which Q/DQ pairs become an int8 kernel. It is asked to write that decision down, as an ``.ort``
in a temporary folder, whose values all carry shapes; nothing is executed.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path
from typing import Any

from lavit_edge.errors import UserError
from lavit_edge.verdict.plan import Array, Op, Plan, kind_of

# the weight's place among the inputs of int8 products
INT8_PRODUCTS = {
    "QLinearConv": 3, "ConvInteger": 1, "QGemm": 3, "QLinearMatMul": 3, "MatMulInteger": 1, "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1,
}  # fmt: skip
FLOAT_PRODUCTS = {"Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
UNCOUNTED = {"Attention", "MultiHeadAttention", "QAttention", "Einsum", "LSTM", "GRU", "MatMulNBits"}
# of onnx.TensorProto.DataType; what is not listed has 4 bytes
UNSIGNED, SIGNED, WIDTHS = 2, 3, {2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 13: 8, 16: 2, 21: 0.5, 22: 0.5}


def read(path: Path, arm: bool) -> Plan:
    """
    Args:
        path: an ``.onnx`` or ``.ort``.
        arm: as ONNX Runtime would on ARM, where int8 activations stay int8; elsewhere it makes them uint8.

    Raises:
        UserError: not installed, damaged, or a shape that is not known before a picture comes.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"ONNX Runtime is not usable here ({error}); pip install 'lavit-edge[onnx]'") from error
    notes: list[str] = []
    if path.suffix == ".ort":
        data = path.read_bytes()
    else:
        with tempfile.TemporaryDirectory() as folder:
            data = _optimised(onnxruntime, path, Path(folder) / "optimised.ort", arm, notes)
    graph = _graph(onnxruntime, data, path)
    constants = {graph.Initializers(i).Name().decode() for i in range(graph.InitializersLength())}
    shapes, widths, int8 = _values(graph)
    uncounted = set()
    ops = []
    for node, inputs, outputs in _in_order(graph):
        name = node.OpType().decode()
        if unknown := [value for value in inputs + outputs if value not in shapes]:
            raise UserError(f"{path}: the shape of {unknown[0]!r} is not known before it runs; export it with a fixed input size")

        def array(value: str) -> Array:
            return Array(math.prod(shapes[value]), widths[value], value in constants, value)

        if name in UNCOUNTED:
            uncounted.add(name)
        macs, weight = _macs(node, name, [shapes[value] for value in inputs], shapes[outputs[0]])
        if macs:
            inputs = [inputs[0], inputs[weight], *inputs[1:weight], *inputs[weight + 1 :]]
        depthwise = "Conv" in name and bool(macs) and shapes[inputs[1]][1] == 1 and shapes[inputs[1]][0] > 1
        is_int8 = name in INT8_PRODUCTS if macs else inputs[0] in int8
        slow = bool(macs) and is_int8 and (name == "ConvInteger" or int8.get(inputs[0]) == SIGNED)
        ops.append(
            Op(
                name,
                "product" if macs else kind_of(name),
                tuple(map(array, inputs)),
                tuple(map(array, outputs)),
                macs,
                is_int8,
                depthwise,
                slow,
                label=node.Name().decode(),
            )
        )
    if uncounted:
        notes.append(f"The multiply-adds of {', '.join(sorted(uncounted))} are not counted.")
    return Plan("ONNX Runtime", tuple(ops), notes=tuple(notes))


def _optimised(onnxruntime: Any, path: Path, out: Path, arm: bool, notes: list[str]) -> bytes:
    """The bytes of the ``.ort`` that ONNX Runtime makes of a model when it loads it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(out)
    options.add_session_config_entry("session.save_model_format", "ORT")
    if arm:
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    for name in _batch_names(path):
        options.add_free_dimension_override_by_name(name, 1)
        notes.append(f"The batch {name!r} is taken as 1.")
    # its blocks pad channels to the width of this host's vectors, and would add to the multiply-adds
    disabled = ["NchwcTransformer"]
    try:
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled)
    except Exception as error:  # its exceptions have no common base
        raise UserError(f"{path} is damaged or not a model ({error}); export it again") from error
    return out.read_bytes()


def _batch_names(path: Path) -> list[str]:
    """Names of symbolic first dimensions of the inputs."""
    import onnx

    try:
        inputs = onnx.load(path, load_external_data=False).graph.input
    except Exception as error:  # protobuf's DecodeError, OSError
        raise UserError(f"{path} is damaged or not a model ({error}); export it again") from error
    shapes = [value.type.tensor_type.shape.dim for value in inputs]
    return sorted({shape[0].dim_param for shape in shapes if shape and shape[0].dim_param})


def _graph(onnxruntime: Any, data: bytes, path: Path) -> Any:
    """The main graph of an ``.ort``, by the readers that ONNX Runtime ships for its own tools."""
    folder = str(Path(onnxruntime.__file__).parent / "tools" / "ort_format_model")
    if folder not in sys.path:
        sys.path.append(folder)
    from ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

    try:
        if not InferenceSession.InferenceSessionBufferHasIdentifier(data, 0):
            raise ValueError("it lacks the mark ORTM")
        return InferenceSession.GetRootAsInferenceSession(data, 0).Model().Graph()
    except Exception as error:  # struct.error, ValueError, AttributeError of a file cut short
        raise UserError(f"{path} is damaged or not an .ort ({error}); export it again") from error


def _values(graph: Any) -> tuple[dict[str, list[int]], dict[str, float], dict[str, int]]:
    """Shape, where it is known, and width of every value, and the type of those that are int8 or uint8."""
    from ort_flatbuffers_py.fbs.TensorTypeAndShape import TensorTypeAndShape

    shapes: dict[str, list[int]] = {}
    widths: dict[str, float] = {}
    int8: dict[str, int] = {}
    for index in range(graph.NodeArgsLength()):
        value = graph.NodeArgs(index)
        name = value.Name().decode()
        if value.Type() is None or value.Type().Value() is None:
            continue
        table = value.Type().Value()
        tensor = TensorTypeAndShape()
        tensor.Init(table.Bytes, table.Pos)
        widths[name] = WIDTHS.get(tensor.ElemType(), 4)
        if tensor.ElemType() in (UNSIGNED, SIGNED):
            int8[name] = tensor.ElemType()
        if (shape := tensor.Shape()) is not None:
            sizes = [shape.Dim(i).Value() for i in range(shape.DimLength())]
            if all(size is not None and not size.DimParam() for size in sizes):
                shapes[name] = [size.DimValue() for size in sizes]
    return shapes, widths, int8


def _in_order(graph: Any) -> list[tuple[Any, list[str], list[str]]]:
    """The nodes with their inputs and outputs, each behind those that it reads; the file has rewritten ones at its end."""
    nodes = []
    for index in range(graph.NodesLength()):
        node = graph.Nodes(index)
        inputs = [value for i in range(node.InputsLength()) if (value := node.Inputs(i).decode())]
        outputs = [value for i in range(node.OutputsLength()) if (value := node.Outputs(i).decode())]
        nodes.append((node, inputs, outputs))
    maker = {value: index for index, (_, _, outputs) in enumerate(nodes) for value in outputs}
    order: dict[int, None] = {}
    stack = [maker[name] for i in range(graph.OutputsLength()) if (name := graph.Outputs(i).decode()) in maker]
    while stack:  # depth first
        missing = [maker[value] for value in nodes[stack[-1]][1] if value in maker and maker[value] not in order]
        if missing:
            stack.append(missing[0])
        else:
            order[stack.pop()] = None
    return [nodes[index] for index in order]


def _macs(node: Any, name: str, shapes: list[list[int]], output: list[int]) -> tuple[int, int]:
    """Multiply-adds, 0 for what multiplies no matrices; and the place of the weight among the inputs."""
    if name not in INT8_PRODUCTS and name not in FLOAT_PRODUCTS:
        return 0, 0
    weight = INT8_PRODUCTS.get(name, 1)
    if name == "ConvTranspose":
        return math.prod(shapes[0]) * math.prod(shapes[weight][1:]), weight
    if "Conv" in name:  # weight: outputs, inputs of one group, height, width; in every layout of the activations
        return math.prod(output) * math.prod(shapes[weight][1:]), weight
    attributes = {node.Attributes(i).Name().decode(): node.Attributes(i) for i in range(node.AttributesLength())}
    transposed = "transA" in attributes and bool(attributes["transA"].I())
    return math.prod(output) * shapes[0][-2 if transposed else -1], weight
