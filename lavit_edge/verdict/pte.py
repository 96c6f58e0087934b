"""Reads an ExecuTorch ``.pte``: the method's instructions, and inside each delegate call the delegate's own graph."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lavit_edge.errors import UserError
from lavit_edge.toolchain import toolchain
from lavit_edge.verdict import mlpackage
from lavit_edge.verdict.plan import Array, Op, Plan, kind_of

XNNPACK, COREML = "XnnpackBackend", "CoreMLBackend"
INT8 = {"qint8", "quint8", "qdint8", "qpint8"}
WIDTHS = {"fp16": 2, "bf16": 2, "fp32": 4, "pfp32": 4, "int32": 4, "qint32": 4, "qcint32": 4, "qcint4": 0.5, "qbint4": 0.5}
SCALARS = {"BYTE": 1, "CHAR": 1, "BOOL": 1, "SHORT": 2, "HALF": 2, "BFLOAT16": 2, "LONG": 8, "DOUBLE": 8}


def read(path: Path) -> Plan:
    """Raises :class:`UserError` for a file that is no ``.pte``, and for a delegate other than XNNPACK and Core ML."""
    with toolchain("ExecuTorch", "executorch"):
        from executorch.exir._serialize._program import deserialize_pte_binary
    try:
        program = deserialize_pte_binary(path.read_bytes()).program
    except Exception as error:  # struct.error, AssertionError, ValueError: its readers share no base
        raise UserError(f"{path} is damaged or not a .pte ({str(error) or type(error).__name__}); export it again") from error
    methods = {plan.name: plan for plan in program.execution_plan}
    if "forward" not in methods:
        raise UserError(f"{path} has no method 'forward' but {', '.join(methods) or 'none'}; only forward is judged")
    method = methods["forward"]
    names = sorted({delegate.id for delegate in method.delegates})
    if len(names) > 1 or set(names) - {XNNPACK, COREML}:
        raise UserError(f"{path} uses {', '.join(names)}; only {XNNPACK} or {COREML} alone can be read")
    payloads = [bytes(program.backend_delegate_data[delegate.processed.index].data) for delegate in method.delegates]
    if names == [COREML]:
        return _coreml(method, payloads)
    graphs = _xnnpack_graphs(payloads)
    ops: list[Op] = []
    calls = 0
    for number, stored in enumerate(instruction for chain in method.chains for instruction in chain.instructions):
        instruction = stored.instr_args
        made: Iterable[Op] = ()
        if hasattr(instruction, "delegate_index"):
            made = _xnnpack_ops(graphs[instruction.delegate_index])
            calls += 1
        elif hasattr(instruction, "op_index"):
            made = (_kernel(method, instruction),)
        ops += (dataclasses.replace(op, instruction=number) for op in made)
    return Plan("ExecuTorch", tuple(ops), True, calls)


def _coreml(method: Any, payloads: list[bytes]) -> Plan:
    """Each payload is an ``.mlpackage`` in one piece."""
    from executorch.backends.apple.coreml import executorchcoreml

    ops: list[Op] = []
    width, calls = 4, 0
    for instruction in (instruction.instr_args for chain in method.chains for instruction in chain.instructions):
        if hasattr(instruction, "op_index"):
            ops.append(_kernel(method, instruction))
        elif hasattr(instruction, "delegate_index"):
            with tempfile.TemporaryDirectory() as folder:
                if not executorchcoreml.unflatten_directory_contents(payloads[instruction.delegate_index], folder):
                    raise UserError("the Core ML delegate's payload cannot be unpacked; export the .pte again")
                inside = mlpackage.read(next(Path(folder).rglob("*.mlpackage")))
            ops += inside.ops
            width, calls = inside.float_width, calls + 1
    return Plan("Core ML", tuple(ops), True, calls, width, mlpackage.NOTES)


def _xnnpack_graphs(payloads: list[bytes]) -> list[dict[str, Any]]:
    """Each payload's graph as flatc prints it: behind a 30-byte header, a flatbuffer."""
    from executorch.backends.xnnpack.serialization import xnnpack_graph_serialize as serialize
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    graphs = []
    with tempfile.TemporaryDirectory() as folder:
        schema, binary = Path(folder, "schema.fbs"), Path(folder, "graph.bin")
        schema.write_bytes(serialize._get_schema_bytes())
        for payload in payloads:
            header = serialize.XNNHeader.from_bytes(payload[: serialize.XNNHeader.EXPECTED_LENGTH])
            binary.write_bytes(payload[header.flatbuffer_offset :][: header.flatbuffer_size])
            _flatc_decompile(folder, str(schema), str(binary))
            text = binary.with_suffix(".json").read_text(encoding="utf-8")
            graphs.append(json.loads(re.sub(r": [+-]?(inf|nan)\b", ": null", text)))  # flatc's, which JSON does not have
    return graphs


def _xnnpack_ops(graph: dict[str, Any]) -> Iterator[Op]:
    types: dict[int, str] = {}
    shapes: dict[int, list[int]] = {}
    constants = set()
    for stored in graph["xvalues"]:
        value = stored["xvalue_union"]
        value = value.get("tensor_value", value)
        number = value["id_out"]
        types[number] = value["datatype"].removeprefix("xnn_datatype_")
        shapes[number] = value.get("dims", [])
        if value["constant_buffer_idx"]:
            constants.add(number)

    def array(number: int) -> Array:
        return Array(math.prod(shapes[number]), WIDTHS.get(types[number], 1), number in constants)

    for stored in graph["xnodes"]:
        name, node = stored["xnode_union_type"].removeprefix("XNN"), stored["xnode_union"]
        inputs = [node[key] for key in node if key.endswith("_id") and not key.startswith("output") and node[key] in shapes]
        if name.startswith("Concatenate"):  # its unused inputs say 0, which is also a value's number
            inputs = inputs[: int(name[-1])]
        output = node.get("output_id", node.get("output_value_id"))
        macs = _xnnpack_macs(name, [shapes[number] for number in inputs], shapes[output], node)
        yield Op(
            name,
            "product" if macs else kind_of(name),
            tuple(map(array, inputs)),
            (array(output),),
            macs,
            int8=types[inputs[0]] in INT8 and (not macs or types[inputs[1]] != "fp32"),
            depthwise=name == "DepthwiseConv2d",
            label=str(stored.get("debug_handle", 0)),
        )


def _xnnpack_macs(name: str, inputs: list[list[int]], output: list[int], node: dict[str, Any]) -> int:
    if name in ("FullyConnected", "BatchMatrixMultiply"):
        return math.prod(output) * inputs[0][-1]
    if name == "Conv2d":  # filter: outputs, height, width, inputs
        return math.prod(output) * math.prod(inputs[1][1:])
    if name == "ConvTranspose2d":
        return math.prod(inputs[0]) * math.prod(inputs[1][:3]) // node["groups"]
    if name == "DepthwiseConv2d":
        return math.prod(output) * node["kernel_height"] * node["kernel_width"]
    if name == "ScaledDotProductAttention":  # query x key, then scores x value
        return math.prod(inputs[0]) * inputs[1][-2] + math.prod(output) * inputs[1][-2]
    return 0


def _kernel(method: Any, call: Any) -> Op:
    """An operator that ExecuTorch's own kernels run."""
    name = method.operators[call.op_index].name.rpartition("::")[2]
    tensors = []
    for index in dict.fromkeys(call.args):
        value = method.values[index].val
        if type(value).__name__ == "Tensor":
            width = SCALARS.get(value.scalar_type.name, 4)
            tensors.append((list(value.sizes), Array(math.prod(value.sizes), width, value.allocation_info is None)))
    shapes, arrays = [shape for shape, _ in tensors], [array for _, array in tensors]
    macs = 0
    if name == "convolution":
        transposed = any(type(method.values[i].val).__name__ == "Bool" and method.values[i].val.bool_val for i in call.args)
        macs = math.prod(shapes[0] if transposed else shapes[-1]) * math.prod(shapes[1][1:])
    elif name in ("addmm", "mm", "bmm", "linear"):
        arrays = [*arrays[1:-1], arrays[0], arrays[-1]] if name == "addmm" else arrays  # its bias comes first
        macs = math.prod(shapes[-1]) * shapes[1 if name == "addmm" else 0][-1]
    depthwise = name == "convolution" and len(shapes[1]) == 4 and shapes[1][1] == 1 and shapes[0][1] > 1
    kind = "product" if macs else kind_of(name)
    return Op(name, kind, tuple(arrays[:-1]), tuple(arrays[-1:]), macs, depthwise=depthwise, outside=True)
