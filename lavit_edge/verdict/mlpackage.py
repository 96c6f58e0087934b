"""Reads a Core ML ``.mlpackage``: the operations of its ML program. Which unit runs each is Core ML's choice, on the device."""

from __future__ import annotations

import collections
import itertools
import math
from pathlib import Path
from typing import Any

from lavit_edge.errors import UserError
from lavit_edge.toolchain import toolchain
from lavit_edge.verdict.plan import Array, Op, Plan, kind_of

PRODUCTS = ("linear", "conv", "conv_transpose", "matmul")
WIDTHS = {"FLOAT16": 2, "INT8": 1, "UINT8": 1, "BOOL": 1}
NOTES = (
    "Core ML chooses the unit for each operation on the device; here all are taken to run on the Neural Engine. A product "
    "counts as int8 when both its operands are dequantised and its result is quantised.",
)


def read(path: Path) -> Plan:
    """
    Args:
        path: the package's folder, holding one ML program.

    Raises:
        UserError: coremltools is not installed, the package is damaged, or it holds another type of model.
    """
    with toolchain("coremltools", "coreml"):
        from lavit_edge.artifact.mlprogram import specification, tensor_type
    spec = specification(path)
    if spec.WhichOneof("Type") != "mlProgram" or "main" not in spec.mlProgram.functions:
        raise UserError(f"{path.name}: not an ML program with a function main; only those can be judged")
    function = spec.mlProgram.functions["main"]
    block = function.block_specializations[function.opset]
    types: dict[str, Any] = {value.name: tensor_type(value.type) for value in function.inputs}
    makers: dict[str, Any] = {}
    for operation in block.operations:
        for output in operation.outputs:
            types[output.name] = tensor_type(output.type)
            makers[output.name] = operation
    constants = {name for name, maker in makers.items() if maker.type == "const" or maker.type.startswith("constexpr_")}

    def array(name: str) -> Array:
        compressed = name in constants and makers[name].type.startswith("constexpr_")
        return Array(math.prod(types[name][1]), 1 if compressed else WIDTHS.get(types[name][0], 4), name in constants)

    stored = [op for op in block.operations if op.outputs[0].name not in constants and types[op.outputs[0].name] is not None]
    users: dict[str, list[Any]] = collections.defaultdict(list)
    for operation in stored:
        for name in itertools.chain(*_inputs(operation).values()):
            users[name].append(operation)
    products = {id(op): _int8(op, makers, users) for op in stored if op.type in PRODUCTS}
    ops = []
    for operation in stored:
        inputs, outputs = _ordered(operation, types), [value.name for value in operation.outputs if types[value.name]]
        readers = [products.get(id(user), False) for user in users[outputs[0]]]
        if operation.type == "dequantize" and readers and all(readers):
            continue  # part of the products that read it
        if operation.type == "quantize" and inputs[0] in makers and products.get(id(makers[inputs[0]])):
            continue  # part of the product that it rounds
        int8, macs = products.get(id(operation), False), 0
        if operation.type in PRODUCTS:
            macs = _macs(operation, types, makers)
        else:
            int8 = types[inputs[0]][0] in ("INT8", "UINT8") or operation.type == "quantize"
        weight = types[inputs[1]][1] if macs else (1, 0)
        if int8 and macs:
            inputs[:2] = [_ordered(makers[n], types)[0] if makers[n].type == "dequantize" else n for n in inputs[:2]]
            outputs = [users[outputs[0]][0].outputs[0].name]
        ops.append(
            Op(
                operation.type,
                "product" if macs else kind_of(operation.type),
                tuple(map(array, inputs)),
                tuple(map(array, outputs)),
                macs,
                int8,
                depthwise=operation.type == "conv" and weight[1] == 1 and weight[0] > 1,
            )
        )
    half = any(array.width == 2 for op in ops for array in op.writes)
    return Plan("Core ML", tuple(ops), calls=1, float_width=2 if half else 4, notes=NOTES)


def _inputs(operation: Any) -> dict[str, list[str]]:
    """Parameter -> names of values; what is written in place is left out."""
    return {key: [a.name for a in argument.arguments if a.name] for key, argument in operation.inputs.items()}


def _ordered(operation: Any, types: dict[str, Any]) -> list[str]:
    """The tensors that it reads, a product's two operands first."""
    inputs = _inputs(operation)
    order = sorted(inputs, key=lambda key: {"x": 0, "input": 0, "weight": 1, "y": 1}.get(key, 2))
    return [name for key in order for name in inputs[key] if types.get(name) is not None]


def _int8(operation: Any, makers: dict[str, Any], users: dict[str, list[Any]]) -> bool:
    """Whether a product stands between dequantised operands and one quantize."""
    inputs = _inputs(operation)
    operands = inputs["x"] + inputs.get("weight", []) + inputs.get("y", [])
    after = [user.type for user in users[operation.outputs[0].name]]
    codes = all(name in makers and makers[name].type in ("dequantize", "constexpr_affine_dequantize") for name in operands)
    return codes and after == ["quantize"]


def _macs(operation: Any, types: dict[str, Any], makers: dict[str, Any]) -> int:
    inputs = _inputs(operation)
    output, x = types[operation.outputs[0].name][1], types[inputs["x"][0]][1]
    if operation.type == "linear":
        return math.prod(output) * x[-1]
    if operation.type == "matmul":
        return math.prod(output) * x[-2 if _flag(operation, inputs, makers, "transpose_x") else -1]
    return math.prod(output if operation.type == "conv" else x) * math.prod(types[inputs["weight"][0]][1][1:])


def _flag(operation: Any, inputs: dict[str, list[str]], makers: dict[str, Any], parameter: str) -> bool:
    if parameter not in operation.inputs:
        return False
    names = inputs[parameter]
    value = makers[names[0]].attributes["val"] if names else operation.inputs[parameter].arguments[0].value
    return bool(value.immediateValue.tensor.bools.values[0])
