"""Additions that int8 kernels can compute, as modules: those of two tensors that int8 layers or other such additions made."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection

import torch
from torch import fx, nn

from lavit_edge.models.blocks import Add
from lavit_edge.traced.layers import place
from lavit_edge.traced.nodes import before, behind, hands_on, is_call, path_of, shape

aten = torch.ops.aten


def is_layer(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(graph_module.get_submodule(str(node.target)), nn.Linear | nn.Conv2d)


def ends(graph_module: fx.GraphModule) -> tuple[list[str], list[str]]:
    """Paths of the layers that no other layer comes before, and of those that no other comes behind, in order of execution."""
    nodes = graph_module.graph.nodes
    layers = {node: None for node in nodes if is_layer(graph_module, node)}
    after, ahead = behind(nodes, layers), before(nodes, layers)
    return [str(n.target) for n in layers if n not in after], [str(n.target) for n in layers if n not in ahead]


def additions_as_modules(graph_module: fx.GraphModule, float_layers: Collection[str]) -> None:
    """Puts ``Add`` modules in the place of additions whose sides are both int8 already, and whose sum a layer reads.

    Where norms alone read the sum, as in a transformer, int8 would save nothing, and its rounding would add up.

    Args:
        float_layers: paths or shell patterns of the layers that are not int8.
    """
    graph, made, counts = graph_module.graph, set(), dict[str, int]()
    taken = {name for name, _ in graph_module.named_modules()} | set(graph_module.state_dict())

    def int8(node: object) -> bool:
        while isinstance(node, fx.Node) and hands_on(node):
            node = node.args[0]
        return isinstance(node, fx.Node) and (
            node in made
            or (is_layer(graph_module, node) and not any(fnmatch.fnmatch(str(node.target), each) for each in float_layers))
        )

    wanted: dict[fx.Node, bool] = {}  # whether a layer reads what a node gives, or a sum with it
    for node in reversed(graph.nodes):
        wanted[node] = any(
            is_layer(graph_module, user) or ((hands_on(user) or is_call(user, aten.add)) and wanted[user]) for user in node.users
        )
    for node in list(graph.nodes):
        if not is_call(node, aten.add) or node.kwargs.get("alpha", 1) != 1 or not all(map(int8, node.args[:2])):
            continue
        if shape(node.args[0]) != shape(node.args[1]) or not wanted[node]:
            continue
        parent = path_of(node)
        name = "add" if parent not in counts else f"add_{counts[parent]}"
        counts[parent] = counts.get(parent, 0) + 1
        path = f"{parent}.{name}".lstrip(".")
        while any(path == name or name.startswith(f"{path}.") for name in taken):
            path += "_"
        place(graph_module, path, Add())
        with graph.inserting_before(node):
            call = graph.call_module(path, node.args[:2])
        call.meta = {key: node.meta[key] for key in ("val", "nn_module_stack") if key in node.meta}
        node.replace_all_uses_with(call)
        graph.erase_node(node)
        made.add(call)
