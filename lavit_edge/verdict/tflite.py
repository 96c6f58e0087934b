"""Reads a ``.tflite``: its operators, and which of them LiteRT hands to XNNPACK when it loads the file; nothing is executed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lavit_edge.artifact.runners import litert_interpreter
from lavit_edge.artifact.tflite import operators, reading, schema
from lavit_edge.errors import UserError
from lavit_edge.verdict.plan import Array, Op, Plan, kind_of

WIDTHS = {"FLOAT16": 2, "INT8": 1, "UINT8": 1, "BOOL": 1, "INT16": 2, "INT4": 0.5, "INT64": 8, "FLOAT64": 8}
CODES = {"INT8", "UINT8"}
DELEGATE = "DELEGATE"
NOTES = (
    "What LiteRT's own kernels take, outside of XNNPACK, and a phone's GPU or NPU delegate are not known: rates are those of "
    "XNNPACK in ExecuTorch.",
)


def read(path: Path) -> Plan:
    """Raises :class:`UserError`: LiteRT is not installed, the file is damaged, or it has no fixed shapes."""
    inside, calls = _delegated(litert_interpreter(path, threads=1))
    with reading(path) as root:
        generated = schema()
        model = generated.ModelT.InitFromObj(root)
        graph = model.subgraphs[0]
        types = {code: name for name, code in vars(generated.TensorType).items() if isinstance(code, int)}
        if any(side < 0 for tensor in graph.tensors for side in _shape(tensor.shapeSignature)):
            raise UserError(f"{path} has sizes that are not known before it runs; export it with a fixed input size")
        ops = []
        for number, (name, operator) in enumerate(operators(generated, model, graph)):
            reads = [graph.tensors[index] for index in operator.inputs if index >= 0]
            writes = [graph.tensors[index] for index in operator.outputs]
            if name == "TRANSPOSE_CONV":
                reads = [reads[2], reads[1], *reads[3:]]
            macs = _macs(name, operator, [_shape(tensor.shape) for tensor in reads], _shape(writes[0].shape))
            codes = [types[tensor.type] in CODES for tensor in reads]

            def array(tensor: Any) -> Array:
                stored = model.buffers[tensor.buffer].data is not None
                return Array(math.prod(_shape(tensor.shape)), WIDTHS.get(types[tensor.type], 4), stored)

            ops.append(
                Op(
                    name,
                    "product" if macs else kind_of(name),
                    tuple(map(array, reads)),
                    tuple(map(array, writes)),
                    macs,
                    int8=all(codes[:2]) if macs else any(codes[:1]),
                    depthwise=name == "DEPTHWISE_CONV_2D",
                    outside=number not in inside,
                    label=(writes[0].name or b"").decode("utf-8", "replace"),
                )
            )
    return Plan("LiteRT", tuple(ops), True, calls, notes=NOTES)


def _shape(sides: Any) -> list[int]:
    return [] if sides is None else [int(side) for side in sides]


def _delegated(interpreter: Any) -> tuple[set[int], int]:
    """The operators that delegates compute, by number, and how many calls of delegates there are.

    What replaced the operators is listed behind them: a call's values lead back to what it was given.
    """
    listed = interpreter._get_ops_details()
    calls = [op for op in listed if op["op_name"] == DELEGATE]
    maker = {int(value): op for op in listed if op["op_name"] != DELEGATE for value in op["outputs"]}
    inside: set[int] = set()
    for call in calls:
        given = {int(value) for value in call["inputs"]}
        wanted = [int(value) for value in call["outputs"]]
        while wanted:
            op = maker.get(wanted.pop())
            if op is not None and op["index"] not in inside:
                inside.add(op["index"])
                wanted += [int(value) for value in op["inputs"] if int(value) not in given]
    return inside, len(calls)


def _macs(name: str, operator: Any, inputs: list[list[int]], output: list[int]) -> int:
    """Multiply-adds; 0 for what multiplies no matrices."""
    if name == "CONV_2D":  # filter: outputs, height, width, inputs
        return math.prod(output) * math.prod(inputs[1][1:])
    if name == "DEPTHWISE_CONV_2D":
        return math.prod(output) * math.prod(inputs[1][1:3])
    if name == "TRANSPOSE_CONV":
        return math.prod(inputs[0]) * math.prod(inputs[1][:3])
    if name == "FULLY_CONNECTED":
        return math.prod(output) * inputs[1][-1]
    if name == "BATCH_MATMUL":
        return math.prod(output) * inputs[0][-2 if operator.builtinOptions.adjX else -1]
    return 0
