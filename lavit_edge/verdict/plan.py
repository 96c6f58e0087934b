"""What a runtime will execute for one picture, read from an artifact: a list of operators with their multiply-adds and bytes."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["product", "convert", "view", "move", "math", "simple"]

# Operators by lower-case name, as the runtimes call them. What is not listed is "simple": one pass over its data.
_KINDS: dict[Kind, str] = {
    # between float and int8, or from one int8 grid to another
    "convert": "quantizelinear dequantizelinear dynamicquantizelinear convert quantize dequantize quantize_per_tensor "
    "dequantize_per_tensor quantize_per_channel dequantize_per_channel quantize_per_token dequantize_per_token",
    # no data is touched
    "view": "reshape squeeze unsqueeze flatten identity staticreshape expand_dims",
    # data is copied to other places
    "move": "transpose statictranspose concat concatenate slice staticslice split gather expand tile pad staticconstantpad copy "
    "resize reorderinput reorderoutput permute_copy view_copy expand_copy slice_copy cat clone transpose_copy unsqueeze_copy "
    "concatenation strided_slice gather_nd resize_bilinear resize_nearest_neighbor "
    "squeeze_copy split_with_sizes_copy slice_by_index depthtospace spacetodepth _clone_dim_order _to_dim_order_copy",
    # several passes, or a transcendental function
    "math": "softmax _softmax layernormalization skiplayernormalization simplifiedlayernormalization layer_norm "
    "native_layer_norm instancenormalization groupnormalization native_group_norm batch_norm gelu fastgelu biasgelu "
    "logistic hard_swish quickgelu erf exp tanh sigmoid log sin cos rsqrt sqrt squareroot reciprocalsquareroot pow silu "
    "hardswish qlinearsoftmax qlinearsigmoid qlinearleakyrelu mean reducemean reducesum reducemax reduce_mean reduce_sum sum "
    "globalaveragepool globalavgpooling2d qlinearglobalaveragepool",
}
KIND_OF: dict[str, Kind] = {name: kind for kind, names in _KINDS.items() for name in names.split()}


def kind_of(name: str) -> Kind:
    """The kind of an operator that multiplies no matrices."""
    return KIND_OF.get(re.sub(r"\d+$", "", name.lower()), KIND_OF.get(name.lower(), "simple"))


@dataclass(frozen=True)
class Array:
    """What an operator reads or writes.

    Attributes:
        elements: how many.
        width: bytes of one; 0.5 for 4-bit weights.
        constant: stored in the artifact.
        name: in an ONNX graph; '' elsewhere.
    """

    elements: int
    width: float
    constant: bool = False
    name: str = ""


@dataclass(frozen=True)
class Op:
    """One operator, executed once.

    Attributes:
        name: as the runtime calls it.
        macs: multiply-adds of a ``product``; 0 for all else.
        int8: a product: computed by an int8 kernel. Any other: works on 8-bit data.
        depthwise: a convolution with one input channel per filter.
        slow: an int8 product in a kernel that is slow on some CPUs: of ONNX Runtime, ConvInteger and those with int8 activations.
        outside: the runtime's own kernel runs it, because the delegate did not take it.
        label: the node's name in an ONNX graph; in XNNPACK, the debug handle: the call's number in the exported program, from 1.
        instruction: number of ExecuTorch's instruction that runs it.
    """

    name: str
    kind: Kind
    reads: tuple[Array, ...]
    writes: tuple[Array, ...]
    macs: int = 0
    int8: bool = False
    depthwise: bool = False
    slow: bool = False
    outside: bool = False
    label: str = ""
    instruction: int = 0

    @property
    def bytes(self) -> float:
        """Moved: all that is read and written, constants included; nothing for a view."""
        return 0.0 if self.kind == "view" else sum(array.elements * array.width for array in self.reads + self.writes)

    @property
    def has_weights(self) -> bool:
        """Whether it is a product with stored weights."""
        return self.kind == "product" and any(array.constant for array in self.reads[1:2])

    @property
    def computes(self) -> bool:
        return self.kind in ("product", "math", "simple")


@dataclass(frozen=True)
class Plan:
    """
    Attributes:
        runtime: ``ExecuTorch``, ``ONNX Runtime``, ``LiteRT``, ``Core ML`` or ``Core AI``.
        delegated: whether the runtime hands the graph, or parts of it, to a delegate.
        calls: how often that is called, or Core ML.
        float_width: bytes of a floating number in this artifact, 4 or 2.
        notes: what the reader of the figures must know, one sentence each.
    """

    runtime: str
    ops: tuple[Op, ...]
    delegated: bool = False
    calls: int = 0
    float_width: int = 4
    notes: tuple[str, ...] = ()

    @property
    def quantized(self) -> bool:
        """Whether anything in it is int8."""
        return any(op.kind == "convert" or op.int8 for op in self.ops)

    def as_float(self) -> Plan:
        """The same model in float: nothing is converted, and every 8-bit array has floating numbers."""

        def widen(arrays: tuple[Array, ...]) -> tuple[Array, ...]:
            return tuple(dataclasses.replace(array, width=max(array.width, self.float_width)) for array in arrays)

        ops = (
            dataclasses.replace(op, int8=False, slow=False, reads=widen(op.reads), writes=widen(op.writes))
            for op in self.ops
            if op.kind != "convert"
        )
        return dataclasses.replace(self, ops=tuple(ops))

    def as_int8(self) -> Plan:
        """The same model with every product that has weights in int8, between a conversion of its input and one of its output."""
        ops: list[Op] = []
        for op in self.ops:
            if op.int8 or not op.has_weights:
                ops.append(op)
                continue
            before, after = op.reads[0], op.writes[0]
            codes_in, codes_out = dataclasses.replace(before, width=1), dataclasses.replace(after, width=1)
            weights = tuple(dataclasses.replace(array, width=1) for array in op.reads[1:2]) + op.reads[2:]
            ops += [
                Op("quantise", "convert", (before,), (codes_in,), int8=True, outside=op.outside),
                dataclasses.replace(op, int8=True, reads=(codes_in, *weights), writes=(codes_out,)),
                Op("dequantise", "convert", (codes_out,), (after,), int8=True, outside=op.outside),
            ]
        return dataclasses.replace(self, ops=tuple(ops))

    def islands(self) -> list[list[Op]]:
        """Float operators executed between two int8 products, a list for each time that execution leaves int8 and comes back.

        Conversions and what only moves data do not count as operators here.
        """
        runs: list[list[Op]] = []
        run: list[Op] | None = None  # None before the first int8 product
        for op in self.ops:
            if op.kind == "product" and op.int8:
                if run:
                    runs.append(run)
                run = []
            elif run is not None and op.computes and not op.int8:
                run.append(op)
        return runs
