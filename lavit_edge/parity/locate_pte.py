"""Every value inside a ``.pte``: from a copy of the file in which intermediate values are outputs.

A ``.pte`` is a list of instructions: calls of XNNPACK partitions, each with a graph of its own, and of kernels between them. The
copy keeps all of these, and the stored weights and scales byte for byte. It differs in three things: values inside partitions are
outputs of their partition, all of them are outputs of the method, and each value has memory of its own, so that none is
overwritten. On the bundled model its logits are those of the file to the last bit.

Nodes of XNNPACK's graphs carry debug handles: ExecuTorch numbers the calls of the exported program from 1, in order, without
those that it drops.
"""

from __future__ import annotations

import functools
import importlib.resources
import importlib.util
import math
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import fx

from lavit_edge.artifact.runners import executorch_method, to_tensor
from lavit_edge.errors import UserError
from lavit_edge.parity.locate_points import QUANTIZE, Reference, Values, operator
from lavit_edge.toolchain import missing

NO_HANDLE = 65535  # xnnpack_preprocess.DEFAULT_DEBUG_HANDLE: a node that a pass of the back end put in
OUTPUT = 2  # xnnpack_constants.XNN_VALUE_FLAG_EXTERNAL_OUTPUT
HEADER = 32  # bytes before the graph in an XNNPACK payload: XNNHeader, padded
ACTIVATIONS = ("relu", "relu6", "hardtanh", "clamp")  # that XNNPACK computes in the node before
# what ExecuTorch makes nodes of these kinds from: the check that debug handles are read aright
OPERATORS = {
    "XNNConv2d": ("conv2d",),
    "XNNDepthwiseConv2d": ("conv2d",),
    "XNNFullyConnected": ("linear",),
    "XNNBatchMatrixMultiply": ("bmm", "matmul"),
    "XNNSoftmax": ("softmax",),
    "XNNConvert": ("quantize", "dequantize_per_tensor"),
}
ITEM = 8  # bytes kept for each element of a value: the widest type


def open_pte(path: Path, reference: Reference, folder: Path) -> Values:
    """As :func:`lavit_edge.parity.locate_values.open_values`."""
    try:
        from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary
    except ImportError as error:
        raise missing("ExecuTorch", "executorch", error) from error
    file = deserialize_pte_binary(path.read_bytes())
    copy = _Copy(path.name, file.program, reference)
    (folder / path.name).write_bytes(bytes(serialize_pte_binary(file)))
    method = executorch_method(folder / path.name, threads=1)

    def read(picture: np.ndarray) -> dict[str, np.ndarray]:
        outputs = method.execute([torch.from_numpy(to_tensor(picture))])
        return {point: outputs[index].numpy().copy() for point, index in copy.outputs.items()}

    return Values(path.name, reference, read, copy.grids)


class _Copy:
    """Rewrites a program in place.

    Attributes:
        outputs: position among the method's outputs, by point.
        grids: as in :class:`Values`.
    """

    def __init__(self, name: str, program: Any, reference: Reference) -> None:
        from executorch.exir import schema

        self.schema, self.name, self.reference = schema, name, reference
        self.program = program
        self.plan = next(plan for plan in program.execution_plan if plan.name == "forward")
        self.memory = 0
        self.calls: dict[int, fx.Node] = {}  # what is known of the plan's values: index -> call that it is the result of
        self.indices: dict[str, int] = {}  # point -> index of a value
        self.grids: dict[str, tuple[float, int]] = {}
        for value in self.plan.values:
            if isinstance(value.val, schema.Tensor) and value.val.allocation_info is not None:
                self._place(value.val)
        for instruction in self.plan.chains[0].instructions:
            arguments = instruction.instr_args
            if isinstance(arguments, schema.DelegateCall):
                self._partition(arguments)
            elif isinstance(arguments, schema.KernelCall):
                self._kernel(arguments)
        self.plan.non_const_buffer_sizes = [0, self.memory]
        self.outputs = {}
        for point, index in self.indices.items():
            if index not in self.plan.outputs:
                self.plan.outputs.append(index)
            self.outputs[point] = self.plan.outputs.index(index)

    def _place(self, tensor: Any) -> None:
        """Gives a tensor memory that no other tensor uses."""
        tensor.allocation_info = self.schema.AllocationDetails(1, self.memory & 0xFFFFFFFF, self.memory >> 32)
        self.memory += -(-math.prod(tensor.sizes) * ITEM // 64) * 64

    def _partition(self, call: Any) -> None:
        """Makes the points inside a partition outputs of it."""
        data = self.program.backend_delegate_data[self.plan.delegates[call.delegate_index].processed.index]
        graph, rest = read_graph(data.data)
        values = {getattr(v.xvalueUnion, "tensorValue", v.xvalueUnion).idOut: v.xvalueUnion for v in graph.xvalues}
        calls: dict[int, fx.Node] = {}  # what is known of the graph's values, by id
        for id_, value in values.items():
            external = getattr(value, "tensorValue", value).externalId
            if external < len(call.args) and call.args[external] in self.calls:
                calls[id_] = self.calls[call.args[external]]
        for node in graph.xnodes:
            kind = node.xnodeUnion
            id_ = kind.outputId
            value = values[id_]
            tensor, grid = getattr(value, "tensorValue", value), getattr(value, "quantParams", None)
            inputs = [getattr(kind, name) for name in ("inputId", "input1Id", "input2Id") if hasattr(kind, name)]
            if node.debugHandle == NO_HANDLE:  # changes the layout, or converts between float and int8
                if inputs[0] in calls:
                    calls[id_] = calls[inputs[0]]
                continue
            calls[id_] = made = self._result(node, grid is not None)
            point = self.reference.points.get(made.name)
            if point is not None:
                if (grid is None) != (point.scale is None):
                    raise self._foreign(made)
                if not tensor.flags & OUTPUT:
                    tensor.flags, tensor.externalId = OUTPUT, graph.numExterns
                    graph.numExterns += 1
                    graph.outputIds = [*graph.outputIds, id_]
                    call.args.append(self._new_value(tensor, grid is not None))
                self.indices[made.name] = call.args[tensor.externalId]
                if grid is not None:
                    self.grids[made.name] = grid.scale, grid.zeroPoint
            if tensor.flags & OUTPUT:
                self.calls[call.args[tensor.externalId]] = made
        data.data = write_graph(graph, rest)

    def _result(self, node: Any, quantized: bool) -> fx.Node:
        """The call of the program whose result a node computes, along with the activation and quantiser that it takes in."""
        if not 1 <= node.debugHandle <= len(self.reference.numbered):
            raise self._foreign(None)
        call = self.reference.numbered[node.debugHandle - 1]
        if operator(call) not in OPERATORS.get(_kinds()[node.xnodeUnionType], operator(call)):
            raise self._foreign(call)
        if node.outputMinMax is not None and operator(call) not in ACTIVATIONS:
            call = next((user for user in call.users if operator(user) in ACTIVATIONS), call)
        if quantized and call.target != QUANTIZE:
            call = next((user for user in call.users if user.target == QUANTIZE), call)
        return call

    def _new_value(self, tensor: Any, quantized: bool) -> int:
        schema = self.schema
        sizes = [int(size) for size in tensor.dims]
        new = schema.Tensor(
            scalar_type=schema.ScalarType.CHAR if quantized else schema.ScalarType.FLOAT,
            storage_offset=0,
            sizes=sizes,
            dim_order=list(range(len(sizes))),
            requires_grad=False,
            layout=0,
            data_buffer_idx=0,
            allocation_info=None,
            shape_dynamism=schema.TensorShapeDynamism.STATIC,
        )
        self._place(new)
        self.plan.values.append(schema.EValue(new))
        return len(self.plan.values) - 1

    def _kernel(self, call: Any) -> None:
        """Finds the call of the program that a kernel between partitions computes: the next of its kind on the same input."""
        kind = self.plan.operators[call.op_index].name.split("::")[1].removeprefix("native_").removesuffix("_copy")
        source = self.calls.get(call.args[0])
        output = call.args[-1]
        if isinstance(self.plan.values[output].val, self.schema.TensorList):
            output = self.plan.values[output].val.items[0]
        known = {made.name for made in self.calls.values()}
        for user in source.users if source is not None else ():
            if operator(user) == kind and user.name not in known:
                self.calls[output] = user
                if user.name in self.reference.points:
                    self.indices[user.name] = output
                return

    def _foreign(self, call: fx.Node | None) -> UserError:
        place = f"it has another operator in the place of {call.name}" if call else "it has more operators"
        return UserError(f"{self.name} is not made from this program by this ExecuTorch: {place}; export it again")


def read_graph(payload: bytes) -> tuple[Any, bytes]:
    """XNNPACK's graph in a partition's payload, as an object, and what follows it."""
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader

    header = XNNHeader.from_bytes(payload[: XNNHeader.EXPECTED_LENGTH])
    start, size = header.flatbuffer_offset, header.flatbuffer_size
    return _format().XNNGraphT.InitFromPackedBuf(payload[start : start + size], 0), payload[header.constant_data_offset :]


def write_graph(graph: Any, rest: bytes) -> bytes:
    """The reverse of :func:`read_graph`."""
    import flatbuffers
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader

    builder = flatbuffers.Builder()
    builder.Finish(graph.Pack(builder), file_identifier=b"XN01")
    packed = bytes(builder.Output())
    padded = packed + bytes(-len(packed) % 16)
    header = XNNHeader(HEADER, len(packed), HEADER + len(padded), len(rest))
    return header.to_bytes().ljust(HEADER, b"\0") + padded + rest


@functools.cache
def _kinds() -> dict[int, str]:
    """Number -> name of a kind of node in XNNPACK's graphs."""
    return {number: name for name, number in vars(_format().XNodeUnion).items() if isinstance(number, int)}


@functools.cache
def _format() -> ModuleType:
    """Reader and writer of XNNPACK's graphs, generated from the schema that ExecuTorch ships, by the ``flatc`` that it ships."""
    from executorch.exir._serialize._flatbuffer import _run_flatc

    with tempfile.TemporaryDirectory() as folder:
        schema = importlib.resources.files("executorch.backends.xnnpack.serialization") / "schema.fbs"
        with importlib.resources.as_file(schema) as file:
            _run_flatc(["--python", "--gen-object-api", "--gen-onefile", "-o", folder, str(file)])
        spec = importlib.util.spec_from_file_location("xnnpack_schema", Path(folder) / "schema_generated.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    # flatc 24.3 defines XnodeUnionCreator and calls XNodeUnionCreator
    defined = {name.lower(): function for name, function in vars(module).items()}
    for union in ("XNodeUnion", "XValueUnion", "XNNQuantParams"):
        setattr(module, f"{union}Creator", defined[f"{union}Creator".lower()])
    return module
