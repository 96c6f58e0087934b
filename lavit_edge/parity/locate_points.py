"""The values of a program that are compared with an artifact's, and the program run on the artifact's own values."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from lavit_edge.artifact.aimodel import decompose
from lavit_edge.errors import UserError
from lavit_edge.models.paths import block_of
from lavit_edge.quantize.program import DEQUANTIZE, DEQUANTIZE_WEIGHT, QUANTIZE
from lavit_edge.toolchain import quiet
from lavit_edge.traced.nodes import moves

Feed = Literal["layers", "blocks", "nothing"]
NEAR = 0.1  # of a value's energy: what rounding to int8 leaves is nearer, another value is not but by chance


@dataclass(frozen=True)
class Point:
    """A value that is compared.

    Attributes:
        block: module path of the block that computes it, such as ``stages.1.blocks.0``; ``model`` outside of all blocks.
        layer: module path of the layer, such as ``stages.1.blocks.0.attention.query``.
        op: the operator, such as ``linear``; ``quantize`` where a layer's float input becomes int8.
        scale, zero_point: the int8 grid that the value lies on; None and 0 for a float value.
    """

    block: str
    layer: str
    op: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int = 0


class Reference:
    """An exported program whose values can be looked at.

    Points are the results of all operators that compute. A value that is quantised and used by nothing else is looked at after
    that, since runtimes do both in one step; operators that only move values, and codes that stay on their grid, are passed over.

    Attributes:
        points: by node name, in the order of the program.
        calls: every call in the program, in order.
        names: name of a value in the program as toolchains take it, without operators that are not their own -> name of the call
            that has that value. In nets of this package they are the same; elsewhere pooling becomes one more ``mean``, and all
            that follow are counted anew.
        numbered: the calls that are left there, in order: some move nothing and are dropped.
        logits: name of the point that is the program's output.
        layers: for quantised layers, name of the stored weight -> names of the points at the layer's input (None if that value
            is no point of its own) and at its output.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self.module = program.module(check_guards=False)
        self.calls = [node for node in program.graph.nodes if node.op == "call_function"]
        self.program = program
        with quiet():
            self.names = origins(program.run_decompositions({}))
        left = set(self.names.values())
        self.numbered = [node for node in self.calls if node.name in left]
        self.logits: str = program.graph.output_node().args[0][0].name
        self.points: dict[str, Point] = {}
        self.layers: dict[str, tuple[str | None, str]] = {}
        self.blocks: dict[str, str] = {}
        path = "model"
        for node in self.calls:
            path = _path(node) or path
            self.blocks[node.name] = block_of(path)
            if not _is_point(node):
                continue
            layer, op = path, operator(node)
            grid: Any = ()
            if node.target == QUANTIZE:
                grid, source = node.args[1:3], _source(node)
                if not moves(source) and len(source.users) == 1:
                    layer, op = _path(source) or path, operator(source)
                    self._layer(program, source, node)
            self.points[node.name] = Point(block_of(layer), layer, op, tuple(node.meta["val"].shape), *grid)

    def _layer(self, program: ExportedProgram, node: fx.Node, quantized: fx.Node) -> None:
        """Notes the layer that ``node`` computes, if it has stored int8 weights."""
        weights = [user for user in node.all_input_nodes if user.target == DEQUANTIZE_WEIGHT]
        inputs = [_source(user).name for user in node.all_input_nodes if user.target == DEQUANTIZE]
        if weights and inputs:
            name = program.graph_signature.inputs_to_buffers[_source(weights[0]).name]
            self.layers[name] = inputs[0] if inputs[0] in self.points else None, quantized.name

    @functools.cached_property
    def onnx_names(self) -> dict[str, str]:
        """As ``names``, of the program as torch's exporter to ONNX takes it. Taking it apart costs 2 CPU-seconds."""
        from torch.onnx._internal.exporter import _fx_passes, _registration

        with quiet():
            return origins(_fx_passes.decompose_with_registry(self.program, _registration.ONNXRegistry.from_torchlib()))

    @functools.cached_property
    def coreai_names(self) -> dict[str, str]:
        """As ``names``, of the program as coreai-torch takes it."""
        with quiet():
            return origins(decompose(self.program))

    @torch.no_grad()
    def run(self, picture: Tensor, seen: dict[str, Tensor], feed: Feed, half: bool = False) -> dict[str, Tensor]:
        """Value of every point, int8 ones dequantised.

        Args:
            picture: float32 ``(1, 3, size, size)``.
            seen: an artifact's values by point, int8 ones dequantised. ``layers``, without ``half``, brings their axes into the
                program's order, in place, and must come first.
            feed: where the program goes on with the artifact's value in place of its own: after each point (``layers``), so that
                each layer is given what the artifact's layer was given; between blocks; or nowhere.
            half: round every float value, stored or computed, to fp16, as a program whose values are fp16 must; sums inside an
                operator stay float32.
        """
        run = _Run(self, seen, feed, half)
        run.run(picture)
        return run.found


@dataclass(frozen=True)
class Values:
    """The values of one artifact.

    Attributes:
        reference: the program that it was made from.
        read: picture, uint8 ``(size, size, 3)`` -> value by point, int8 ones as codes. Points that it does not hold are absent.
        grids: scale and zero point of the codes, by point, as the artifact stores them.
    """

    name: str
    reference: Reference
    read: Callable[[np.ndarray], dict[str, np.ndarray]]
    grids: dict[str, tuple[float, int]]

    def run(self, picture: np.ndarray) -> dict[str, Tensor]:
        """Value by point: float32, codes dequantised, axes as the artifact has them."""
        found = {}
        for point, value in self.read(picture).items():
            shape = self.reference.points[point].shape
            if value.size != math.prod(shape):
                what = f"{point} has shape {value.shape}, not {shape}"
                raise UserError(f"{self.name} is not made from this program: {what}; export it again")
            tensor = torch.from_numpy(np.array(value, np.float32, order="C"))
            if point in self.grids:
                scale, zero_point = self.grids[point]
                tensor = (tensor - zero_point) * scale
            found[point] = tensor
        return found


def laid_out(value: Tensor, own: Tensor) -> Tensor:
    """``value`` with its axes in the order of ``own``: of those that have its sides the one in which it is nearest to ``own``.

    Operators behind a layer with channels last keep its layout and their own name, and coremltools moves a transposition past the
    scale of ``nn.MultiheadAttention``'s queries. ``own`` is made of what the artifact gave that layer, since behind a fault the
    program left to itself is no measure. What is near in no order is wrong; it stays as it lies, or its channels come first.
    """
    value, sides = value.squeeze(), own.squeeze().shape
    orders = [order for order in itertools.permutations(range(value.ndim)) if tuple(value.shape[axis] for axis in order) == sides]
    turned = [value.permute(order).reshape(own.shape) for order in orders] or [value.reshape(own.shape)]
    differences = [float((each - own).square().sum()) for each in turned] if len(turned) > 1 else [0.0]
    least = min(differences)
    return turned[differences.index(least) if least < NEAR * float(own.square().sum()) else 0]


class _Run(fx.Interpreter):
    def __init__(self, reference: Reference, seen: dict[str, Tensor], feed: Feed, half: bool) -> None:
        super().__init__(reference.module)
        self.reference, self.seen, self.feed, self.half = reference, seen, feed, half
        self.found: dict[str, Tensor] = {}
        self.block = "model"

    def run_node(self, n: fx.Node) -> Any:
        before, self.block = self.block, self.reference.blocks.get(n.name, self.block)
        if self.feed == "blocks" and self.block != before:  # codes stay as they are: it is their dequantiser that is replaced
            kept = [node for node in self.env if node.name in self.seen and node.target != QUANTIZE]
            self.env.update({node: self.seen[node.name] for node in kept})
        result = self._rounded(super().run_node(n))
        if n.target == DEQUANTIZE and (source := _source(n).name) in self.seen and self._fed(source):
            return self._rounded(self.seen[source].clone())
        if n.name not in self.reference.points:
            return result
        if n.target == QUANTIZE:
            point = self.reference.points[n.name]
            assert point.scale is not None
            own = (result.float() - point.zero_point) * point.scale
        else:
            own = result.clone()  # a net that was not made here may overwrite it, as ReLU(inplace=True) does
        self.found[n.name] = own
        if n.name not in self.seen:
            return result
        if self.feed == "layers" and not self.half:
            self.seen[n.name] = laid_out(self.seen[n.name], own)
        return self.seen[n.name].clone() if n.target != QUANTIZE and self._fed(n.name) else result

    def _rounded(self, value: Any) -> Any:
        return value.half().float() if self.half and isinstance(value, Tensor) and value.is_floating_point() else value

    def _fed(self, name: str) -> bool:
        """Whether the value of a point is replaced by the artifact's for the node that runs now."""
        if self.feed == "blocks":
            return self.reference.blocks[name] != self.block
        return self.feed == "layers"


def origins(decomposed: ExportedProgram) -> dict[str, str]:
    """Name of a value in a decomposed program -> name of the call, in the program that it was made from, that has that value.

    Of the values that a call became it is the last.
    """
    last = {node.meta["from_node"][-1].name: node.name for node in decomposed.graph.nodes if node.op == "call_function"}
    return {name: origin for origin, name in last.items()}


def _is_point(node: fx.Node) -> bool:
    if moves(node) or node.target in (DEQUANTIZE, DEQUANTIZE_WEIGHT) or not isinstance(node.meta["val"], Tensor):
        return False
    if node.target == QUANTIZE:
        source = _source(node)
        while moves(source):
            source = _source(source)
        return source.target != DEQUANTIZE
    if not node.meta["val"].is_floating_point():  # a condition or an index: what it chooses is a point
        return False
    return not (len(node.users) == 1 and next(iter(node.users)).target == QUANTIZE)


def _source(node: Any) -> fx.Node:
    return node.args[0]


def operator(node: fx.Node) -> str:
    """``linear`` of ``aten.linear.default``, ``relu`` of ``aten.relu_.default``; a ``quantize_per_tensor`` is ``quantize``."""
    if node.target == QUANTIZE:
        return "quantize"
    return (
        node.target._schema.name.split("::")[1].removesuffix("_") if isinstance(node.target, torch._ops.OpOverload) else node.name
    )


def _path(node: fx.Node) -> str:
    """Path, in the model that is deployed, of the module that the node was traced in; '' for the model itself."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path = re.sub(r"\.quantize_(input|output|weight)$", "", stack[-1][0]) if stack else ""
    return path.partition(".")[2]
