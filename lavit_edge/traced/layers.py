"""Layers as modules: what depends on no picture is computed once, and each linear map and convolution becomes a module.

A layer has the path that its weight had; a weight that is used twice becomes two layers, since each of them has ranges of its own
in int8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, fx, nn

from lavit_edge.traced.nodes import Insert, arguments, get_value, is_call, path_of, shape, zeros_around

aten = torch.ops.aten


class Names:
    """Paths at which modules and constants are put: no two alike, and none inside a layer, which is replaced as a whole."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def free(self, path: str) -> str:
        """``path``, or the like of it."""
        for other in self.taken:
            if path.startswith(f"{other}."):
                return self.free(f"{other}_{path.removeprefix(other)[1:]}")
        chosen, count = path, 1
        while chosen in self.taken or any(other.startswith(f"{chosen}.") for other in self.taken):
            count += 1
            chosen = f"{path}_{count}"
        self.taken.add(chosen)
        return chosen


def place(root: nn.Module, path: str, value: nn.Module | Tensor) -> None:
    """Puts a module, parameter or constant at a dotted path, the modules in between made where they are missing."""
    *parents, name = path.split(".")
    for parent in parents:
        if not isinstance(root._modules.get(parent), nn.Module):
            root._modules[parent] = nn.Module()
        root = root._modules[parent]  # type: ignore[assignment]
    if isinstance(value, nn.Parameter):
        root.register_parameter(name, value)
    elif isinstance(value, Tensor):
        root.register_buffer(name, value)
    else:
        root.add_module(name, value)


def fold_constants(graph_module: fx.GraphModule, kept: Collection[Callable] = ()) -> bool:
    """Operators that no picture reaches become what they give: slices of a packed weight, a table of position biases.

    Args:
        kept: operators that stay.

    Returns:
        Whether there were any.
    """
    graph, values, learnt = graph_module.graph, dict[fx.Node, Any](), set[fx.Node]()
    for node in graph.nodes:
        sources = node.all_input_nodes
        if node.op == "get_attr":
            values[node] = get_value(graph_module, node.target)
        elif node.op == "call_function" and all(source in values for source in sources):
            if _random(node) or node.target in kept:
                continue
            with torch.no_grad():
                values[node] = node.target(
                    *fx.node.map_arg(node.args, values.__getitem__), **fx.node.map_arg(node.kwargs, values.__getitem__)
                )
        if node in values and (isinstance(values[node], nn.Parameter) or learnt & set(sources)):
            learnt.add(node)
    folded = False
    for node, value in values.items():
        if node.op == "get_attr" or not isinstance(value, Tensor) or all(user in values for user in node.users):
            continue
        path = f"{path_of(node)}.constant_{node.name}".lstrip(".")
        value = value.detach().clone().contiguous()
        place(graph_module, path, nn.Parameter(value) if node in learnt and value.is_floating_point() else value)
        with graph.inserting_before(node):
            constant = graph.create_node("get_attr", path)
        constant.meta = {"val": torch.empty_like(value, device="meta"), "nn_module_stack": node.meta.get("nn_module_stack", {})}
        node.replace_all_uses_with(constant, delete_user_cb=lambda user: user not in values)
        folded = True
    graph.eliminate_dead_code()
    return folded


def _random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def convolutions_of_one_axis_as_of_two(graph_module: fx.GraphModule) -> None:
    """``conv1d``, as in efficient channel attention, becomes ``conv2d`` of a map of one row, which back ends have in int8."""
    for node in list(graph_module.graph.nodes):
        if not is_call(node, aten.conv1d) or len(shape(node.args[0]) or ()) != 3:
            continue
        named, insert = arguments(node), Insert(graph_module.graph, node)
        source, weight = (insert(aten.unsqueeze.default, named[name], 2) for name in ("input", "weight"))
        padding = named["padding"]
        of_two = aten.conv2d.padding if isinstance(padding, str) else aten.conv2d.default
        stride, dilation = ([1, *named[name]] for name in ("stride", "dilation"))
        sides = padding if isinstance(padding, str) else [0, *padding]
        made = insert(of_two, source, weight, named["bias"], stride, sides, dilation, named["groups"])
        node.replace_all_uses_with(insert(aten.squeeze.dim, made, 2))
        graph_module.graph.erase_node(node)


def products_as_layers(graph_module: fx.GraphModule) -> None:
    """``x @ W`` with one stored matrix becomes a linear map."""
    for node in list(graph_module.graph.nodes):
        if not is_call(node, aten.matmul, aten.mm, aten.bmm) or not _constant(node.args[1]):
            continue
        size = shape(node.args[1]) or ()
        if len(size) < 2 or math.prod(size[:-2]) != 1 or len(shape(node.args[0]) or ()) < len(size):
            continue
        other = node.args[1]
        path = f"{other.target}_{node.name}"
        matrix = get_value(graph_module, other.target).detach().reshape(size[-2:]).T.contiguous()
        place(graph_module, path, nn.Parameter(matrix))
        insert = Insert(graph_module.graph, node)
        with graph_module.graph.inserting_before(node):
            weight = graph_module.graph.create_node("get_attr", path)
        weight.meta["val"] = torch.empty_like(matrix, device="meta")
        node.replace_all_uses_with(insert(aten.linear.default, node.args[0], weight))
        graph_module.graph.erase_node(node)


def _constant(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.op == "get_attr"


def layers_as_modules(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A module with the same graph, in which each ``linear`` and ``conv2d`` of stored weights is a module; all other tensors
    are as they were."""
    graph, root, names = graph_module.graph, nn.Module(), Names()
    for node in list(graph.nodes):
        if not is_call(node, aten.linear, aten.conv2d):
            continue
        named = arguments(node)
        if not _constant(named["weight"]) or not (named["bias"] is None or _constant(named["bias"])):
            continue
        tensors = {name: get_value(graph_module, named[name].target) for name in ("weight", "bias") if named[name] is not None}
        source = named["input"]
        layer: nn.Linear | nn.Conv2d
        if is_call(node, aten.conv2d):
            if len(shape(source) or ()) != 4:
                continue
            layer, source = _convolution(graph, node, named, tensors["weight"])
        else:
            out, into = tensors["weight"].shape
            layer = nn.Linear(into, out, bias="bias" in tensors, device="meta")
        for name, value in tensors.items():
            layer.register_parameter(name, nn.Parameter(value.detach().clone()))
        path = names.free(str(named["weight"].target).removesuffix("weight").rstrip("._") or "layer")
        place(root, path, layer)
        with graph.inserting_before(node):
            call = graph.create_node("call_module", path, (source,))
        call.meta = {key: node.meta[key] for key in ("val", "nn_module_stack") if key in node.meta}
        node.replace_all_uses_with(call)
        graph.erase_node(node)
    constants: dict[str, str] = {}
    for node in list(graph.nodes):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)
        elif node.op == "get_attr":
            if node.target not in constants:
                constants[node.target] = names.free(node.target)
                place(root, constants[node.target], get_value(graph_module, node.target))
            node.target = constants[node.target]
    return fx.GraphModule(root, graph)


def _convolution(graph: fx.Graph, node: fx.Node, named: dict[str, Any], weight: Tensor) -> tuple[nn.Conv2d, fx.Node]:
    """The layer, which puts the zeros around its input as far as both sides are alike, and its input.

    Where they differ, as ``same`` pads, an operator of its own does it: in float, as runtimes have it between int8 layers, the 16
    of EfficientNet-Lite0 took 29 % of its time in ONNX Runtime.
    """
    kernel = tuple(weight.shape[2:])
    stride, dilation = (_pair(named[name]) for name in ("stride", "dilation"))
    source, padding = named["input"], named["padding"]
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        padding = [each // 2 for each in total]
        if any(each % 2 for each in total):  # the last row and column get the odd one
            sides = [side for each in reversed(total) for side in (each // 2, each - each // 2)]
            source, padding = Insert(graph, node)(aten.constant_pad_nd.default, source, sides), [0, 0]
    match zeros_around(source):
        case [left, right, top, bottom] if left == right and top == bottom:
            source, padding = source.args[0], [own + more for own, more in zip(_pair(padding), (top, left), strict=True)]
    out, into, groups = weight.shape[0], weight.shape[1] * named["groups"], named["groups"]
    options = {"stride": stride, "padding": _pair(padding), "dilation": dilation, "groups": groups}
    return nn.Conv2d(into, out, kernel, bias=named["bias"] is not None, device="meta", **options), source  # type: ignore[arg-type]


def _pair(value: Any) -> tuple[int, int]:
    first, last = (value, value) if isinstance(value, int) else (value[0], value[-1])
    return first, last
