"""Additions that int8 kernels can compute, as modules: those of two tensors that int8 layers or other such additions made."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection

import torch
from torch import fx, nn

from lavit_edge.models.blocks import Add
from lavit_edge.traced.layers import place
from lavit_edge.traced.nodes import SHAPE_OPS, clamp_of, is_call, path_of, shape

aten = torch.ops.aten


def is_layer(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(graph_module.get_submodule(str(node.target)), nn.Linear | nn.Conv2d)


def ends(graph_module: fx.GraphModule) -> tuple[list[str], list[str]]:
    """Paths of the layers that no other layer comes before, and of those that no other comes behind, in order of execution."""
    graph, behind, before = graph_module.graph, set[fx.Node](), set[fx.Node]()
    layers = {node: None for node in graph.nodes if is_layer(graph_module, node)}
    for node in graph.nodes:  # in topological order
        if any(source in behind or source in layers for source in node.all_input_nodes):
            behind.add(node)
    for node in reversed(graph.nodes):
        if any(user in before or user in layers for user in node.users):
            before.add(node)
    return [str(n.target) for n in layers if n not in behind], [str(n.target) for n in layers if n not in before]


def additions_as_modules(graph_module: fx.GraphModule, float_layers: Collection[str]) -> None:
    """Puts ``Add`` modules in the place of additions whose sides are both int8 already; what matches ``float_layers`` is not."""
    graph, made, counts = graph_module.graph, set(), dict[str, int]()

    def int8(node: object) -> bool:
        while isinstance(node, fx.Node) and (is_call(node, *SHAPE_OPS) or _clamps_alone(node)):
            node = node.args[0]
        return isinstance(node, fx.Node) and (
            node in made
            or (is_layer(graph_module, node) and not any(fnmatch.fnmatch(str(node.target), each) for each in float_layers))
        )

    for node in list(graph.nodes):
        if not is_call(node, aten.add) or node.kwargs.get("alpha", 1) != 1 or not all(map(int8, node.args[:2])):
            continue
        if shape(node.args[0]) != shape(node.args[1]):
            continue
        parent = path_of(node)
        name = "add" if parent not in counts else f"add_{counts[parent]}"
        counts[parent] = counts.get(parent, 0) + 1
        path = f"{parent}.{name}".lstrip(".")
        while hasattr_path(graph_module, path):
            path += "_"
        place(graph_module, path, Add())
        with graph.inserting_before(node):
            call = graph.call_module(path, node.args[:2])
        call.meta = {key: node.meta[key] for key in ("val", "nn_module_stack") if key in node.meta}
        node.replace_all_uses_with(call)
        graph.erase_node(node)
        made.add(call)


def _clamps_alone(node: fx.Node) -> bool:
    """Whether a node is a ReLU or the like of a value that nobody else reads: rounding does it (``quantize/graph.py``)."""
    return clamp_of(node) is not None and isinstance(node.args[0], fx.Node) and len(node.args[0].users) == 1


def hasattr_path(module: nn.Module, path: str) -> bool:
    for name in path.split("."):
        if not hasattr(module, name):
            return False
        module = getattr(module, name)
    return True
