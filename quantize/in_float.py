"""What of a quantised model computes in float, layer by layer and operator by operator, and why."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from lavit_edge.quantize.graph import LAYER_OPS, LayerGraph
from lavit_edge.traced.nodes import SHAPE_OPS, before, behind, is_call

FIRST = "no layer before it: rounding the picture would disturb all that follows"
LAST = "no layer behind it: logits would lie on a grid"
ASKED = "asked for by --float-layers"
SEARCHED = "kept by --max-drop"
OWN = "its architecture keeps it in float"
MADE_WEIGHT = "its weight is made from the picture"
PRODUCT = "a product of two activations"
ONE_SIDE = "an addition one of whose sides is float"
STORED = "adds a stored tensor"
OTHER_LAYER = "of the layers Linear and Conv2d alone have an int8 form here"
NO_FORM = "has no int8 form here"

aten = torch.ops.aten
# they hand on numbers and compute none
MOVES = (
    *SHAPE_OPS, aten.slice, aten.select, aten.split, aten.split_with_sizes, aten.chunk, aten.unbind, aten.expand, aten.clone,
    aten.index, aten.roll, aten.sym_size, operator.getitem,
)  # fmt: skip
PRODUCTS = (aten.bmm, aten.matmul, aten.mm, aten.einsum, aten.scaled_dot_product_attention)
LAYERS = (aten.conv1d, aten.conv3d, aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d, aten.bilinear)


@dataclass(frozen=True)
class InFloat:
    """A layer by its path, or an operator by its name, how many there are, and the reason."""

    what: str
    count: int
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def in_float(
    program: ExportedProgram, float_layers: Collection[str], default: Collection[str], searched: Collection[str] = ()
) -> list[InFloat]:
    """Layers in the order of execution, then operators, most frequent first.

    Args:
        program: the fp32 program of ``Deployed``.
        float_layers: paths of all layers that stay float.
        default: of them, those that do unless somebody says otherwise.
        searched: of them, those that ``--max-drop`` keeps in float.
    """
    graph = LayerGraph(program)
    layer_of = {node: path for node in graph.nodes if (path := graph.layer(node))}
    after, ahead = behind(graph.nodes, layer_of), before(graph.nodes, layer_of)
    paths = dict.fromkeys(layer_of.values())
    first = {path for node, path in layer_of.items() if node not in after}
    last = set(paths) - {path for node, path in layer_of.items() if node in ahead}

    def reason(path: str) -> str:
        if path in searched:
            return SEARCHED
        if path not in default:
            return ASKED
        return FIRST if path in first else LAST if path in last else OWN

    layers = [InFloat(path, 1, reason(path)) for path in paths if path in float_layers]
    operators = Counter(
        (_name(node), _reason(node, graph)) for node in graph.nodes if node in after and _computes_in_float(node, graph)
    )
    return layers + [InFloat(name, count, why) for (name, why), count in operators.most_common()]


def _computes_in_float(node: fx.Node, graph: LayerGraph) -> bool:
    return not (graph.layer(node) or graph.hands_on(node) or is_call(node, *MOVES))


def _name(node: fx.Node) -> str:
    packet = getattr(node.target, "overloadpacket", None)
    return str(packet).removeprefix("aten.") if packet else getattr(node.target, "__name__", str(node.target))


def _reason(node: fx.Node, graph: LayerGraph) -> str:
    if is_call(node, *LAYER_OPS):
        return MADE_WEIGHT
    if is_call(node, *PRODUCTS) or (is_call(node, aten.mul) and _activations(node) == 2):
        return PRODUCT
    if is_call(node, aten.add, aten.sub):
        return ONE_SIDE if _activations(node) == 2 else STORED
    return OTHER_LAYER if is_call(node, *LAYERS) else NO_FORM


def _activations(node: fx.Node) -> int:
    """How many of a node's inputs are computed, not stored."""
    return sum(source.op == "call_function" for source in node.all_input_nodes)
